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

;; To compare the From, Gnus takes the addresses of all certificates that a mail brings; here those of
;; who has signed it.
(advice-add 'smime-pkcs7-region :override
            (lambda (beginning end)
              (let ((signer (make-temp-file "signer")))
                (unwind-protect
                    (when (zerop (call-process-region
                                  beginning end "hsmagent-smime" nil nil nil "-verify" "-noverify"
                                  "-signer" signer "-out" "/dev/null"))
                      (delete-region beginning end)
                      (insert-file-contents signer)
                      t)
                  (delete-file signer)))))
(advice-add 'smime-pkcs7-certificates-region :override (lambda (_beginning _end) t))
(advice-add 'smime-pkcs7-email-region :around
            (lambda (original &rest region)
              (let ((smime-openssl-program "openssl"))
                (apply original region))))

;; smime.el expands key names as if they were files; a name that is not one passes unharmed,
;; because hsmagent-smime looks at the last part only.

(setq send-mail-function #'sendmail-send-it
      sendmail-program "hsmagent-sendmail")

(provide 'hsmagent-smime)
;;; hsmagent-smime.el ends here
