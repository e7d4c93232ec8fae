# Completion of hsmagent-sendmail for fish. Made by `make completions`; do not edit.

function _hsmagent_sendmail_labels # COMMAND: the labels that `hsmagent COMMAND --json` lists
    hsmagent $argv[1] --json 2>/dev/null | string replace -rf '^ *"label": "(.*)",?$' '$1'
end

# One of these words stands before the cursor. (__fish_seen_subcommand_from of fish 4.0 takes "keys"
# for "key", too.)
function _hsmagent_sendmail_seen # WORD...
    for word in (commandline -poc)[2..]
        contains -- $word $argv; and return 0
    end
    return 1
end

complete -c hsmagent-sendmail -f

complete -c hsmagent-sendmail -s t -d 'the recipients are in To, Cc and Bcc'
complete -c hsmagent-sendmail -s i -o oi -d 'a line with only "." does not end the message'
complete -c hsmagent-sendmail -s f -s r -x -d 'the envelope\'s sender, for the real sendmail'
complete -c hsmagent-sendmail -s F -x -d 'the sender\'s full name, for the real sendmail'
complete -c hsmagent-sendmail -s C -rF -d 'a configuration file, for the real sendmail'
complete -c hsmagent-sendmail -s B -s N -s R -s V -s O -s o -s h -s L -s X -s M -s A -s D -s p -s a -x -d 'for the real sendmail'
complete -c hsmagent-sendmail -s m -s n -s v -s G -s U -d 'for the real sendmail'
complete -c hsmagent-sendmail -l help -d 'say this'
complete -c hsmagent-sendmail -l version -d 'say which version this is'
