;;; notmuch.el --- S/MIME in notmuch with the keys in your tokens -*- lexical-binding: t -*-

;; What notmuch's Emacs mode shows is decrypted and verified by notmuch itself, by GPGME, and so by
;; gpgsm: for decryption let GnuPG reach your keys first (their `allow' names "gnupg").  What is sent
;; goes through message-mode, and so through hsmagent-sendmail, which signs with the key of the
;; address in From and needs no GnuPG.
;;
;; Tried is notmuch itself, by tests; its Emacs mode is not.  Tell us what is wrong with it.

(load (expand-file-name "hsmagent-smime" (file-name-directory (or load-file-name buffer-file-name))))

(setq notmuch-crypto-process-mime t)

(provide 'hsmagent-notmuch)
;;; notmuch.el ends here
