;;; hsmagent-smime.el --- S/MIME in Gnus and message-mode with the keys in your tokens -*- lexical-binding: t -*-

;; Load this file and say who you are:
;;   (setq hsmagent-smime-key "alice@example.org")
;; smime.el runs "openssl smime ..."; hsmagent-smime takes the same arguments.  The PIN is asked
;; for by hsmagent.  Roots that were added by `hsmagent roots add' are trusted too.

(require 'smime)

(defvar hsmagent-smime-key "alice@example.org"
  "What names the key that signs and decrypts: an address, a fingerprint or a label.")

(setq smime-openssl-program "hsmagent-smime"
      smime-keys (list (list hsmagent-smime-key hsmagent-smime-key nil))
      mml-smime-use 'openssl
      smime-CA-file "/etc/ssl/certs/ca-certificates.crt"
      ;; Nothing else is sent, whatever is said here.
      smime-encrypt-cipher "-aes256")

;; There is no passphrase that Emacs could ask for.
(advice-add 'smime-ask-passphrase :override #'ignore)

;; smime.el expands key names as if they were files; a name that is not one passes unharmed,
;; because hsmagent-smime looks at the last part only.

(setq send-mail-function #'sendmail-send-it
      sendmail-program "hsmagent-sendmail")

(provide 'hsmagent-smime)
;;; hsmagent-smime.el ends here
