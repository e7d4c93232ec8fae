;;; hsmagent-smime.el --- S/MIME in Gnus and message-mode with the keys in your tokens -*- lexical-binding: t -*-

;; smime.el runs "openssl smime ..."; hsmagent-smime takes the same arguments.  The key that signs
;; is that of the address in From.  The PIN is asked for by hsmagent.  Roots that were added by
;; `hsmagent roots add' are trusted too.

(require 'smime)

(setq smime-openssl-program "hsmagent-smime"
      ;; With one entry smime.el would take it, whatever the From is; of two, the From decides.
      smime-keys '(("the From" "the From" nil) ("another" "another" nil))
      mml-smime-use 'openssl
      ;; Some file must be named; this one stands for the roots that hsmagent's configuration says.
      smime-CA-file "/etc/ssl/certs/ca-certificates.crt"
      ;; Nothing else is sent, whatever is said here.
      smime-encrypt-cipher "-aes256")

;; An address names its key; Emacs 30 wants a list that begins with it.
(advice-add 'smime-get-key-by-email :override #'identity)
(advice-add 'smime-get-key-with-certs-by-email :override #'list)

;; There is no passphrase that Emacs could ask for.
(advice-add 'smime-ask-passphrase :override #'ignore)

;; smime.el expands key names as if they were files; a name that is not one passes unharmed,
;; because hsmagent-smime looks at the last part only.

(setq send-mail-function #'sendmail-send-it
      sendmail-program "hsmagent-sendmail")

(provide 'hsmagent-smime)
;;; hsmagent-smime.el ends here
