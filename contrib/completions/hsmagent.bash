# Completion for bash. Put it into ~/.local/share/bash-completion/completions/ as "hsmagent".

_hsmagent_labels() { # COMMAND: the labels that `hsmagent COMMAND --json` lists
    hsmagent "$1" --json 2>/dev/null | sed -n 's/^ *"label": "\(.*\)",\{0,1\}$/\1/p'
}

_hsmagent_words() { # the words that may stand here
    local command=${words[1]} verb=${words[2]}
    case $cword:$command in
        1:*)
            echo status keys pubkey unlock lock log doctor daemon ssh-agent smime certs \
                forget-pin --version --help
            return
            ;;
        2:smime) echo sign verify encrypt decrypt && return ;;
        2:certs) echo add list remove && return ;;
    esac
    case $command in
        status | keys | doctor) echo --json ;;
        log) echo --json --since ;;
        pubkey) echo --ssh --pem ;;
        unlock) echo --stdin --last-try ;;
        daemon) echo --config --runtime-dir --debug ;;
    esac
    case $command:$verb in
        smime:sign) echo --key --from --opaque --pss --allow-expired --certificate ;;
        smime:verify) echo --json --ca --crl --require-crl --at ;;
        smime:encrypt) echo --recipient --to --not-to-self --cipher --oaep --sign ;;
        smime:decrypt) echo --all --json --report --certificate ;;
        certs:add) echo --root ;;
    esac
}

_hsmagent() {
    local cur prev words cword
    _init_completion -n =: || return
    case $prev in
        --config | --certificate | --recipient | --ca | --crl | --report)
            _filedir
            return
            ;;
        --runtime-dir)
            _filedir -d
            return
            ;;
        --cipher)
            mapfile -t COMPREPLY < <(compgen -W "auto gcm cbc" -- "$cur")
            return
            ;;
    esac
    if [[ $cur != -* ]] && ((cword > 1)); then
        local IFS=$'\n'
        case ${words[1]} in
            unlock | lock | forget-pin) compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -W "$(_hsmagent_labels status)" -- "$cur") ;;
            pubkey) compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -W "$(_hsmagent_labels keys)" -- "$cur") ;;
            smime | certs) ((cword > 2)) && _filedir ;;
        esac
        unset IFS
        [[ ${COMPREPLY[*]} ]] && return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$(_hsmagent_words)" -- "$cur")
}

complete -F _hsmagent hsmagent
