//! Directives in a prompt: `[[name:argument]]`.

/// One step that a prompt asks for. See the table in the parent module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Directive {
    Write {
        path: String,
        content: String,
    },
    Edit {
        path: String,
        old: String,
        new: String,
    },
    Read {
        path: String,
    },
    Shell {
        command: String,
    },
    Slow {
        chunks: u64,
    },
    Think {
        text: String,
    },
    Say {
        text: String,
    },
    Ask {
        title: String,
    },
    Exit {
        code: i32,
    },
    Flood {
        updates: u64,
    },
    Refuse,
    Instructions,
    Env {
        name: String,
    },
    Mcp,
}

/// Finds the directives of a prompt, in order. Brackets that hold none of the
/// known names are left alone; a known name with a wrong argument is an error
/// that says what was expected.
pub(super) fn parse(prompt: &str) -> Result<Vec<Directive>, String> {
    let mut found = Vec::new();
    let mut rest = prompt;
    while let Some(start) = rest.find("[[") {
        rest = &rest[start + 2..];
        let Some(end) = rest.find("]]") else { break };
        if let Some((name, argument)) = rest[..end].split_once(':') {
            found.extend(directive(name, argument)?);
        }
        rest = &rest[end + 2..];
    }
    Ok(found)
}

fn directive(name: &str, argument: &str) -> Result<Option<Directive>, String> {
    let text = argument.to_owned();
    Ok(Some(match name {
        "write" => {
            let (path, content) = argument
                .split_once('|')
                .ok_or("[[write:path|content]] needs a path and a content")?;
            Directive::Write {
                path: path.to_owned(),
                content: content.to_owned(),
            }
        }
        "edit" => {
            let mut parts = argument.splitn(3, '|').map(str::to_owned);
            match (parts.next(), parts.next(), parts.next()) {
                (Some(path), Some(old), Some(new)) => Directive::Edit { path, old, new },
                _ => return Err("[[edit:path|old|new]] needs a path and two texts".to_owned()),
            }
        }
        "read" => Directive::Read { path: text },
        "shell" => Directive::Shell { command: text },
        "slow" => Directive::Slow {
            chunks: number(name, argument)?,
        },
        "think" => Directive::Think { text },
        "say" => Directive::Say { text },
        "ask" => Directive::Ask { title: text },
        "exit" => Directive::Exit {
            code: number(name, argument)?,
        },
        "flood" => Directive::Flood {
            updates: number(name, argument)?,
        },
        "refuse" => Directive::Refuse,
        "instructions" => Directive::Instructions,
        "env" => Directive::Env { name: text },
        "mcp" => Directive::Mcp,
        _ => return Ok(None),
    }))
}

fn number<N: std::str::FromStr>(name: &str, argument: &str) -> Result<N, String> {
    argument
        .trim()
        .parse()
        .map_err(|_| format!("[[{name}:N]] needs a number, not `{argument}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prompt: &str, expected: &[Directive]) {
        assert_eq!(parse(prompt).as_deref(), Ok(expected), "{prompt}");
    }

    #[test]
    fn directives_are_found_in_order_and_prose_is_left_alone() {
        check("hello [[no directive]] [1] a[[b]]", &[]);
        check(
            "[[say:a: b]] then [[write:/w/f|x|y]] [[edit:f|one|two|three]] [[refuse:]] [[open",
            &[
                Directive::Say {
                    text: "a: b".into(),
                },
                Directive::Write {
                    path: "/w/f".into(),
                    content: "x|y".into(),
                },
                Directive::Edit {
                    path: "f".into(),
                    old: "one".into(),
                    new: "two|three".into(),
                },
                Directive::Refuse,
            ],
        );
    }

    #[test]
    fn a_wrong_argument_names_the_form_it_should_have() {
        assert_eq!(
            parse("[[slow:soon]]"),
            Err("[[slow:N]] needs a number, not `soon`".to_owned())
        );
        assert!(parse("[[write:/only/a/path]]").is_err());
        assert!(parse("[[edit:/a|b]]").is_err());
    }
}
