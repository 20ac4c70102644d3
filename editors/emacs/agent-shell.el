(with-eval-after-load 'agent-shell
  (add-to-list
   'agent-shell-agent-configs
   (agent-shell-make-agent-config
    :identifier 'acpbox
    :mode-line-name "acpbox"
    :buffer-name "acpbox"
    :shell-prompt "acpbox> "
    :shell-prompt-regexp "acpbox> "
    :client-maker (lambda (buffer)
                    (acp-make-client :command "acpbox"
                                     :command-params '("stdio" "--agent" "claude")
                                     :context-buffer buffer))))
  (setq agent-shell-preferred-agent-config 'acpbox))
