# Completion of hsmagent-gpgsm for fish. Made by `make completions`; do not edit.

function _hsmagent_gpgsm_labels # COMMAND: the labels that `hsmagent COMMAND --json` lists
    hsmagent $argv[1] --json 2>/dev/null | string replace -rf '^ *"label": "(.*)",?$' '$1'
end

# One of these words stands before the cursor. (__fish_seen_subcommand_from of fish 4.0 takes "keys"
# for "key", too.)
function _hsmagent_gpgsm_seen # WORD...
    for word in (commandline -poc)[2..]
        contains -- $word $argv; and return 0
    end
    return 1
end

complete -c hsmagent-gpgsm -f

complete -c hsmagent-gpgsm -s s -l sign -d 'sign'
complete -c hsmagent-gpgsm -s b -l detach-sign -l detach-sig -d 'sign, and leave the content out'
complete -c hsmagent-gpgsm -l verify -d 'verify'
complete -c hsmagent-gpgsm -s e -l encrypt -d 'encrypt'
complete -c hsmagent-gpgsm -s d -l decrypt -d 'decrypt'
complete -c hsmagent-gpgsm -s k -l list-keys -l list-public-keys -d 'list the certificates that are known'
complete -c hsmagent-gpgsm -s K -l list-secret-keys -d 'list those whose keys are in your tokens'
complete -c hsmagent-gpgsm -s a -l armor -d 'PEM instead of DER'
complete -c hsmagent-gpgsm -s u -l local-user -xa '(_hsmagent_gpgsm_labels keys)' -d 'whose key signs'
complete -c hsmagent-gpgsm -s r -l recipient -x -d 'for whom to encrypt'
complete -c hsmagent-gpgsm -s o -l output -rF -d 'where the result goes'
complete -c hsmagent-gpgsm -l with-colons -d 'lists for a program'
complete -c hsmagent-gpgsm -l with-key-data -l with-keygrip -d 'lists with keygrips'
complete -c hsmagent-gpgsm -l status-fd -x -d 'where status lines go'
complete -c hsmagent-gpgsm -l batch -l yes -s q -l quiet -s v -l verbose -l no-tty -l no-greeting -d 'taken, without effect'
complete -c hsmagent-gpgsm -l no-secmem-warning -l enable-progress-filter -l textmode -d 'taken, without effect'
complete -c hsmagent-gpgsm -l with-fingerprint -l with-validation -l fixed-list-mode -d 'taken, without effect'
complete -c hsmagent-gpgsm -l assume-armor -l assume-base64 -l assume-binary -d 'taken, without effect'
complete -c hsmagent-gpgsm -l keyid-format -l command-fd -l logger-fd -l pinentry-mode -l homedir -x -d 'taken, without effect'
complete -c hsmagent-gpgsm -l display -l ttyname -l ttytype -l xauthority -x -d 'taken, without effect'
complete -c hsmagent-gpgsm -l lc-ctype -l lc-messages -x -d 'taken, without effect'
complete -c hsmagent-gpgsm -l help -d 'say this'
complete -c hsmagent-gpgsm -l version -d 'say in which gpgsm\'s place this is'
complete -c hsmagent-gpgsm -F
