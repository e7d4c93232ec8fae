# Completion of hsmagent-ssh-agent for fish. Made by `make completions`; do not edit.

function _hsmagent_ssh_agent_labels # COMMAND: the labels that `hsmagent COMMAND --json` lists
    hsmagent $argv[1] --json 2>/dev/null | string replace -rf '^ *"label": "(.*)",?$' '$1'
end

# One of these words stands before the cursor. (__fish_seen_subcommand_from of fish 4.0 takes "keys"
# for "key", too.)
function _hsmagent_ssh_agent_seen # WORD...
    for word in (commandline -poc)[2..]
        contains -- $word $argv; and return 0
    end
    return 1
end

complete -c hsmagent-ssh-agent -f

complete -c hsmagent-ssh-agent -s c -d 'print commands for csh'
complete -c hsmagent-ssh-agent -s s -d 'print commands for a Bourne shell'
complete -c hsmagent-ssh-agent -s k -d 'end the agent that SSH_AGENT_PID names'
complete -c hsmagent-ssh-agent -s d -d 'stay in the foreground and log everything but secrets'
complete -c hsmagent-ssh-agent -s D -d 'stay in the foreground'
complete -c hsmagent-ssh-agent -s a -rF -d 'listen at this socket'
complete -c hsmagent-ssh-agent -s E -xa 'md5 sha1 sha256 sha384 sha512' -d 'taken, without effect: no fingerprints are shown'
complete -c hsmagent-ssh-agent -s O -x -d 'allow-remote-pkcs11, no-restrict-websafe, websafe-allow='
complete -c hsmagent-ssh-agent -s P -x -d 'the modules that ssh-add -s may name, as patterns with commas'
complete -c hsmagent-ssh-agent -s t -x -d 'how long added keys are kept (90, 15m, 1h30m)'
complete -c hsmagent-ssh-agent -s T -d 'put the socket below TMPDIR, where it is without -T, too'
complete -c hsmagent-ssh-agent -s U -d 'taken, without effect: sockets of others are never removed'
complete -c hsmagent-ssh-agent -s u -d 'remove stale sockets and end: this agent leaves none'
complete -c hsmagent-ssh-agent -l config -rF -d 'a configuration file, for its tokens too'
complete -c hsmagent-ssh-agent -l help -d 'say this'
complete -c hsmagent-ssh-agent -l version -s V -d 'say which version this is'
