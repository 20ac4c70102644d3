require("codecompanion").setup({
  adapters = {
    acp = {
      acpbox = function()
        -- Any preset that needs no login of its own will do to extend.
        return require("codecompanion.adapters").extend("opencode", {
          name = "acpbox",
          formatted_name = "acpbox",
          commands = { default = { "acpbox", "stdio", "--agent", "claude" } },
          -- Milliseconds: the first start may have to fetch the agent.
          defaults = { timeout = 60000 },
        })
      end,
    },
  },
  interactions = { chat = { adapter = "acpbox" } },
})
