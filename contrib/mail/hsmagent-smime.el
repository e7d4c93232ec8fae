;;; hsmagent-smime.el --- S/MIME in Gnus and message-mode with the keys in your tokens -*- lexical-binding: t -*-

;; smime.el runs "openssl smime ..."; hsmagent-smime takes the same arguments.  The key that signs
;; is that of the address in From.  The PIN is asked for by hsmagent.  Roots that were added by
;; `hsmagent roots add' are trusted too.  M-x hsmagent-encrypt in a draft has it encrypted, too, to those
;; in To and Cc.

(require 'smime)
(require 'mm-decode)
(require 'message)

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

;; Who signed, and whether it holds, is what `hsmagent smime verify' says; smime.el would take any
;; certificate inside a signature for the signer's.
(defun hsmagent-smime-verify (handle ctl)
  "Judge the signed part CTL, with the From of its message; return HANDLE."
  (with-temp-buffer
    (let ((from (mm-handle-multipart-from ctl))
          (coding-system-for-write 'binary))
      (when from (insert (format "From: %s\n" from)))
      (insert (format "MIME-Version: 1.0\nContent-Type: %s" (mm-handle-media-type ctl)))
      (dolist (name '(protocol micalg boundary))
        (insert (format "; %s=\"%s\"" name (mm-handle-multipart-ctl-parameter ctl name))))
      (insert "\n\n")
      (insert-buffer-substring (mm-handle-multipart-original-buffer ctl))
      (if (eq 0 (call-process-region nil nil "hsmagent" t t nil "smime" "verify"))
          (mm-sec-status 'gnus-info "Ok (sender authenticated)")
        (mm-sec-error 'gnus-info "Failed"))
      (mm-sec-status 'gnus-details (buffer-string))))
  handle)

(advice-add 'mml-smime-openssl-verify :override #'hsmagent-smime-verify)

;; The message itself says which key it is for.
(defun hsmagent-smime-any-key (decrypt &rest arguments)
  "Call DECRYPT with ARGUMENTS, and without a choice of keys."
  (let ((smime-keys '(("any" "any" nil))))
    (apply decrypt arguments)))

(advice-add 'mm-view-pkcs7-decrypt :around #'hsmagent-smime-any-key)

;; smime.el expands key names as if they were files; a name that is not one passes unharmed,
;; because hsmagent-smime looks at the last part only.

(setq send-mail-function #'sendmail-send-it
      sendmail-program "hsmagent-sendmail")

(defun hsmagent-encrypt ()
  "Have the message in this buffer encrypted when it is sent."
  (interactive)
  (message-add-header "X-HSMAgent: encrypt"))

(provide 'hsmagent-smime)
;;; hsmagent-smime.el ends here
