# Completion of hsmagent-scd for fish. Made by `make completions`; do not edit.

function _hsmagent_scd_labels # COMMAND: the labels that `hsmagent COMMAND --json` lists
    hsmagent $argv[1] --json 2>/dev/null | string replace -rf '^ *"label": "(.*)",?$' '$1'
end

complete -c hsmagent-scd -f

complete -c hsmagent-scd -l multi-server -d 'serve gpg-agent on standard input and output, and at a socket'
complete -c hsmagent-scd -l server -d 'the same'
complete -c hsmagent-scd -l homedir -xa '(__fish_complete_directories)' -d 'GnuPG\'s folder, for the real scdaemon'
complete -c hsmagent-scd -l scdaemon -rF -d 'the real scdaemon, for other cards; else GnuPG\'s own'
complete -c hsmagent-scd -l runtime-dir -xa '(__fish_complete_directories)' -d 'where the daemon\'s sockets are'
complete -c hsmagent-scd -l help -d 'say this'
complete -c hsmagent-scd -l version -d 'say which version this is'
