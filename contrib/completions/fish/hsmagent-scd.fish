# Completion of hsmagent-scd for fish. Made by `make completions`; do not edit.

function _hsmagent_scd_labels # COMMAND: the labels that `hsmagent COMMAND --json` lists
    hsmagent $argv[1] --json 2>/dev/null | string replace -rf '^ *"label": "(.*)",?$' '$1'
end

# One of these words stands before the cursor. (__fish_seen_subcommand_from of fish 4.0 takes "keys"
# for "key", too.)
function _hsmagent_scd_seen # WORD...
    for word in (commandline -poc)[2..]
        contains -- $word $argv; and return 0
    end
    return 1
end

complete -c hsmagent-scd -f

complete -c hsmagent-scd -l multi-server -d 'serve gpg-agent on standard input and output, and at a socket'
complete -c hsmagent-scd -l server -d 'the same as --multi-server'
complete -c hsmagent-scd -l homedir -xa '(__fish_complete_directories)' -d 'GnuPG\'s folder, for the real scdaemon'
complete -c hsmagent-scd -l scdaemon -rF -d 'the real scdaemon, for other cards; else GnuPG\'s own'
complete -c hsmagent-scd -l runtime-dir -xa '(__fish_complete_directories)' -d 'where the daemon\'s sockets are'
complete -c hsmagent-scd -l help -d 'say this'
complete -c hsmagent-scd -l version -d 'say which version this is'
