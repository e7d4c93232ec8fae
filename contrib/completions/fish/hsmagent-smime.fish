# Completion of hsmagent-smime for fish. Made by `make completions`; do not edit.

function _hsmagent_smime_labels # COMMAND: the labels that `hsmagent COMMAND --json` lists
    hsmagent $argv[1] --json 2>/dev/null | string replace -rf '^ *"label": "(.*)",?$' '$1'
end

# One of these words stands before the cursor. (__fish_seen_subcommand_from of fish 4.0 takes "keys"
# for "key", too.)
function _hsmagent_smime_seen # WORD...
    for word in (commandline -poc)[2..]
        contains -- $word $argv; and return 0
    end
    return 1
end

complete -c hsmagent-smime -f

complete -c hsmagent-smime -o sign -d 'sign'
complete -c hsmagent-smime -o verify -d 'verify, and give what is signed'
complete -c hsmagent-smime -o encrypt -d 'encrypt'
complete -c hsmagent-smime -o decrypt -d 'decrypt'
complete -c hsmagent-smime -o signer -rF -d 'whose key signs; with -verify: where the certificate goes'
complete -c hsmagent-smime -o inkey -xa '(_hsmagent_smime_labels keys)' -d 'whose key signs, where -signer does not say it'
complete -c hsmagent-smime -o recip -rF -d 'for whom, or with -decrypt an old certificate of yours'
complete -c hsmagent-smime -o certfile -rF -d 'further certificates'
complete -c hsmagent-smime -o passin -x -d 'where a passphrase would come from; it is not used'
complete -c hsmagent-smime -o in -rF -d 'the message'
complete -c hsmagent-smime -o out -rF -d 'where the result goes'
complete -c hsmagent-smime -o inform -xa 'SMIME PEM DER' -d 'the form of the message'
complete -c hsmagent-smime -o outform -xa 'SMIME PEM DER' -d 'the form of the result'
complete -c hsmagent-smime -o content -rF -d 'what a detached signature is of'
complete -c hsmagent-smime -o CAfile -rF -d 'roots to trust'
complete -c hsmagent-smime -o CApath -xa '(__fish_complete_directories)' -d 'a folder of roots to trust'
complete -c hsmagent-smime -o to -x -d 'a field To before the result'
complete -c hsmagent-smime -o from -x -d 'a field From before the result'
complete -c hsmagent-smime -o subject -x -d 'a field Subject before the result'
complete -c hsmagent-smime -o md -xa 'sha256 sha384 sha512' -d 'the digest that is signed'
complete -c hsmagent-smime -o aes128 -o aes192 -o aes256 -d 'encrypt by AES in CBC mode'
complete -c hsmagent-smime -o aes-128-gcm -o aes-192-gcm -o aes-256-gcm -d 'encrypt by AES in GCM mode'
complete -c hsmagent-smime -o nodetach -d 'the content inside the signature'
complete -c hsmagent-smime -o binary -d 'leave line ends as they are'
complete -c hsmagent-smime -o text -d 'put a field Content-Type: text/plain before the content'
complete -c hsmagent-smime -o noverify -d 'do not ask whether the signer is trusted'
complete -c hsmagent-smime -o nointern -d 'the signers are those of -certfile, not those in the message'
complete -c hsmagent-smime -o crl_check -d 'fail where a CRL for the signer is missing'
complete -c hsmagent-smime -o crl_check_all -d 'fail where a CRL for a certificate of the chain is missing'
complete -c hsmagent-smime -o attime -x -d 'judge as of this time (seconds since 1970)'
complete -c hsmagent-smime -o purpose -xa 'smimesign' -d 'what is judged: signatures of mail'
complete -c hsmagent-smime -o nosmimecap -o stream -o indef -o noindef -d 'taken, without effect'
complete -c hsmagent-smime -o keyform -x -d 'taken, without effect'
complete -c hsmagent-smime -l help -o help -d 'say this'
complete -c hsmagent-smime -l version -d 'say which version this is'
complete -c hsmagent-smime -F
