# Completion for fish. Put it into ~/.config/fish/completions/.

function __hsmagent_labels # COMMAND: the labels that `hsmagent COMMAND --json` lists
    hsmagent $argv[1] --json 2>/dev/null | string replace -rf '^ *"label": "(.*)",?$' '$1'
end

set -l first "not __fish_seen_subcommand_from status keys pubkey unlock lock log doctor daemon ssh-agent smime certs forget-pin"
complete -c hsmagent -f
complete -c hsmagent -n $first -a status -d "tokens, login state and time left"
complete -c hsmagent -n $first -a keys -d "every key with its SSH line and certificates"
complete -c hsmagent -n $first -a pubkey -d "one public key"
complete -c hsmagent -n $first -a unlock -d "give the PIN in this terminal"
complete -c hsmagent -n $first -a lock -d "log out"
complete -c hsmagent -n $first -a log -d "who used which key for what"
complete -c hsmagent -n $first -a doctor -d "find what is wrong with the set-up"
complete -c hsmagent -n $first -a daemon -d "run the agent in the foreground"
complete -c hsmagent -n $first -a ssh-agent -d "a private stand-in for ssh-agent"
complete -c hsmagent -n $first -a smime -d "sign, verify, encrypt or decrypt a mail"
complete -c hsmagent -n $first -a certs -d "the certificates of others"
complete -c hsmagent -n $first -a forget-pin -d "take a PIN out of the keyring"
complete -c hsmagent -n $first -l version -l help

complete -c hsmagent -n "__fish_seen_subcommand_from status keys doctor log" -l json
complete -c hsmagent -n "__fish_seen_subcommand_from log" -l since -x
complete -c hsmagent -n "__fish_seen_subcommand_from pubkey" -l ssh -l pem
complete -c hsmagent -n "__fish_seen_subcommand_from pubkey" -a "(__hsmagent_labels keys)"
complete -c hsmagent -n "__fish_seen_subcommand_from unlock" -l stdin -l last-try
complete -c hsmagent -n "__fish_seen_subcommand_from unlock lock forget-pin" -a "(__hsmagent_labels status)"
complete -c hsmagent -n "__fish_seen_subcommand_from daemon" -l config -l runtime-dir -rF
complete -c hsmagent -n "__fish_seen_subcommand_from daemon" -l debug

set -l smime "__fish_seen_subcommand_from smime; and not __fish_seen_subcommand_from sign verify encrypt decrypt"
complete -c hsmagent -n $smime -a "sign verify encrypt decrypt"
complete -c hsmagent -n "__fish_seen_subcommand_from sign" -l key -l from -x
complete -c hsmagent -n "__fish_seen_subcommand_from sign" -l opaque -l pss -l allow-expired
complete -c hsmagent -n "__fish_seen_subcommand_from sign decrypt" -l certificate -rF
complete -c hsmagent -n "__fish_seen_subcommand_from verify" -l ca -l crl -rF
complete -c hsmagent -n "__fish_seen_subcommand_from verify" -l require-crl -l json
complete -c hsmagent -n "__fish_seen_subcommand_from verify" -l at -x
complete -c hsmagent -n "__fish_seen_subcommand_from encrypt" -l recipient -rF
complete -c hsmagent -n "__fish_seen_subcommand_from encrypt" -l to -x
complete -c hsmagent -n "__fish_seen_subcommand_from encrypt" -l cipher -xa "auto gcm cbc"
complete -c hsmagent -n "__fish_seen_subcommand_from encrypt" -l not-to-self -l oaep -l sign
complete -c hsmagent -n "__fish_seen_subcommand_from decrypt" -l all -l json
complete -c hsmagent -n "__fish_seen_subcommand_from decrypt" -l report -rF
complete -c hsmagent -n "__fish_seen_subcommand_from smime; and __fish_seen_subcommand_from sign verify encrypt decrypt" -F
complete -c hsmagent -n "__fish_seen_subcommand_from certs; and not __fish_seen_subcommand_from add list remove" -a "add list remove"
complete -c hsmagent -n "__fish_seen_subcommand_from add" -l root -F
