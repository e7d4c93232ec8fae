# Completion of hsmagent-gpgsm for fish. Made by `make completions`; do not edit.

function _hsmagent_gpgsm_labels # COMMAND: the labels that `hsmagent COMMAND --json` lists
    hsmagent $argv[1] --json 2>/dev/null | string replace -rf '^ *"label": "(.*)",?$' '$1'
end

complete -c hsmagent-gpgsm -f

complete -c hsmagent-gpgsm -s s -l sign -d 'sign'
complete -c hsmagent-gpgsm -s b -l detach-sign -l detach-sig -d 'sign, and leave the content out'
complete -c hsmagent-gpgsm -s a -l armor -d 'PEM, which it is in any case'
complete -c hsmagent-gpgsm -s u -l local-user -xa '(_hsmagent_gpgsm_labels keys)' -d 'whose key signs'
complete -c hsmagent-gpgsm -s v -l verify -d 'verify'
complete -c hsmagent-gpgsm -l status-fd -x -d 'where status lines go'
complete -c hsmagent-gpgsm -l output -l keyid-format -x -d 'taken, without effect'
complete -c hsmagent-gpgsm -l batch -l yes -l quiet -l no-tty -d 'taken, without effect'
complete -c hsmagent-gpgsm -l help -d 'say this'
complete -c hsmagent-gpgsm -l version -d 'say which version this is'
complete -c hsmagent-gpgsm -F
