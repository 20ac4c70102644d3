require("avante").setup({
  provider = "acpbox",
  acp_providers = {
    acpbox = {
      command = "acpbox",
      args = { "stdio", "--agent", "claude" },
      -- avante.nvim passes on PATH and what stands here, nothing else.
      env = {
        HOME = os.getenv("HOME"),
        ANTHROPIC_API_KEY = os.getenv("ANTHROPIC_API_KEY"),
      },
    },
  },
})
