;;; mu4e.el --- S/MIME in mu4e with the keys in your tokens -*- lexical-binding: t -*-

;; mu4e shows and writes mail with Gnus' own code, so what serves Gnus serves it, too: load this file
;; from your init file, with hsmagent-smime.el beside it.
;;
;; What you send is signed by hsmagent-sendmail, with the key of the address in its From.  M-x
;; hsmagent-encrypt in a draft has it encrypted to those in To and Cc as well.  The PIN is asked for
;; by hsmagent.

(load (expand-file-name "hsmagent-smime" (file-name-directory (or load-file-name buffer-file-name))))

;; Signatures are checked, and messages decrypted, when they are shown.
(setq mm-verify-option 'known
      mm-decrypt-option 'known
      gnus-buttonized-mime-types '("multipart/signed" "multipart/encrypted"))

(provide 'hsmagent-mu4e)
;;; mu4e.el ends here
