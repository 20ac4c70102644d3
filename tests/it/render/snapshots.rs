//! Whole transcripts, word for word.

use super::*;

#[test]
fn every_kind_of_event_in_a_terminal() {
    let options = TerminalOptions {
        width: 72,
        ..TerminalOptions::default()
    };
    insta::assert_snapshot!(terminal(every_kind(), &options), @r###"
    · session/new in /home/u/proj
    · 2 commands: /init /review
    · the client set the mode plan
    · the client set model to big

    > Fix the greeting.
    > It says hullo.
    > [file greet.rs file:///home/u/proj/greet.rs 34 B]
    > [image image/png 12 KiB]
    > [resource file:///n.md text/markdown 5 B]
    > (echo)

    │ I should look at the file.
    │ Then change it.

    I will look.

    Another message.

    [audio audio/wav 3 B]

    Plan
      [x] Read
      [~] Edit *now*
      [ ] Test
    Plan
      [ ] Again
    · plan: file:///plan.md

    ≡ 1. do it

    · the plan was dropped
    ✓ read Read greet.rs
      line 1
      line 2
      line 3
      line 4
      line 5
      line 6
      line 7
      line 8
      line 9
      line 10
      … 3 more lines
    ✓ edit Edit greet.rs
      /home/u/proj/greet.rs +1 -1
      @@ -1,3 +1,3 @@
       fn main() {
      -    println!("hullo");
      +    println!("hello");
       }
      /home/u/proj/new.md (new) +3
      @@ -0,0 +1,3 @@
      +```
      +code
      +```
    · the agent read /home/u/proj/greet.rs from line 1, 20 lines
    ? Edit greet.rs → Allow once
    · the agent wrote /home/u/proj/new.md (13 B)
    ✗ execute cargo test
      error: test failed
    · the agent ran `cargo test --all`
    · the command exited with 101
    ? cargo test → No
    ✓ tool ls -l
    · the agent asked: Which name?
    · answered: accept
    · mode: code
    · Model: big, Thinking: true
    · title: Greeting fixed
    · Cache warmed
    ! Quota is low
      10 % left
      resets at noon
    · compaction: in progress

    ≡ The user wants a greeting.

    ! compaction failed
      too long
    · subagent Reviewer running
    · child-1 → this session: looks good
    · this session → this session: more
    · future_kind {"weight":3,"deep":{"er":[1]}}
    · _vendor/progress {"percent":40}
    · _vendor/odd {"big":"1e400","id":1.8446744073709552e+19,"lone":"�","k"…

    Done. See:
    ```rust
    fn main() {}

    · tokens: 1,234 in, 56 out, 1,290 in all; context 53,000 of 200,000 tok…

    > And now break.

    ◐ execute rm -rf / spoof

    <!-- red
    spoof

    ? rm -rf / spoof → cancelled
    · the client cancelled the turn
    ! acpbox refused session/request_permission
      nobody is attached
    ■ the turn ended: cancelled

    > Again.

    · agent_message_chunk: a message of 8 B that is not JSON
    ! the agent ended: killed by signal 9
      out of memory
      bye
    ! the turn ended: agent_exit
      the agent ended in the middle of a turn
    ! session/prompt: Internal error: the agent ended (-32603)
      phase: turn
      exit: killed by signal 9
      out of memory
      hint: acpbox logs 0197-s
    · _acpbox/new/thing {"a":1}
    "###);
}

#[test]
fn every_kind_of_event_as_markdown() {
    insta::assert_snapshot!(markdown(every_kind()), @r###"
    <sub>session/new in /home/u/proj</sub>

    <sub>2 commands: /init /review</sub>

    <sub>the client set the mode plan</sub>

    <sub>the client set model to big</sub>

    ## Prompt

    > Fix the greeting.
    > It says hullo.
    > \[file greet.rs file:///home/u/proj/greet.rs 34 B\]
    > \[image image/png 12 KiB\]
    > \[resource file:///n.md text/markdown 5 B\]

    ## Reply

    > (echo)

    > _Thought:_
    >
    > I should look at the file.
    > Then change it.

    I will look.

    Another message.

    \[audio audio/wav 3 B\]

    **Plan**

    - [x] Read
    - [ ] Edit \*now\* _(in progress)_
    - [ ] Test

    **Plan**

    - [ ] Again

    <sub>plan: file:///plan.md</sub>

    > _Plan:_
    >
    > 1. do it

    <sub>the plan was dropped</sub>

    **✓ read** Read greet.rs

    ```text
    line 1
    line 2
    line 3
    line 4
    line 5
    line 6
    line 7
    line 8
    line 9
    line 10
    line 11
    line 12
    line 13
    ```

    **✓ edit** Edit greet.rs

    ```diff
    --- /home/u/proj/greet.rs
    +++ /home/u/proj/greet.rs
    @@ -1,3 +1,3 @@
     fn main() {
    -    println!("hullo");
    +    println!("hello");
     }
    ```

    ````diff
    --- /dev/null
    +++ /home/u/proj/new.md
    @@ -0,0 +1,3 @@
    +```
    +code
    +```
    ````

    <sub>the agent read /home/u/proj/greet.rs from line 1, 20 lines</sub>

    **Permission:** Edit greet.rs → **Allow once**

    <sub>the agent wrote /home/u/proj/new.md (13 B)</sub>

    **✗ execute** cargo test

    ```text
    error: test failed
    ```

    <sub>the agent ran \`cargo test --all\`</sub>

    <sub>the command exited with 101</sub>

    **Permission:** cargo test → **No**

    **✓ tool** ls -l

    <sub>the agent asked: Which name?</sub>

    <sub>answered: accept</sub>

    <sub>mode: code</sub>

    <sub>Model: big, Thinking: true</sub>

    <sub>title: Greeting fixed</sub>

    <sub>Cache warmed</sub>

    **Problem:** Quota is low

    ```text
    10 % left
    resets at noon
    ```

    <sub>compaction: in progress</sub>

    > _Summary:_
    >
    > The user wants a greeting.

    **Problem:** compaction failed

    ```text
    too long
    ```

    <sub>subagent Reviewer running</sub>

    <sub>child-1 → this session: looks good</sub>

    <sub>this session → this session: more</sub>

    <sub>future\_kind {"weight":3,"deep":{"er":\[1\]}}</sub>

    <sub>\_vendor/progress {"percent":40}</sub>

    <sub>\_vendor/odd {"big":"1e400","id":1.8446744073709552e+19,"lone":"�","k":2}</sub>

    Done. See:
    ```rust
    fn main() {}
    ```

    <sub>tokens: 1,234 in, 56 out, 1,290 in all; context 53,000 of 200,000 tokens (26 %), 0.0123 USD</sub>

    ## Prompt

    > And now break.

    ## Reply

    **◐ execute** rm -rf / spoof

    \<!-- red
    spoof

    **Permission:** rm -rf / spoof → **cancelled**

    <sub>the client cancelled the turn</sub>

    **Problem:** acpbox refused session/request\_permission

    ```text
    nobody is attached
    ```

    **The turn ended:** cancelled

    ## Prompt

    > Again.

    ## Reply

    <sub>agent\_message\_chunk: a message of 8 B that is not JSON</sub>

    **Problem:** the agent ended: killed by signal 9

    ```text
    out of memory
    bye
    ```

    **Problem:** the turn ended: agent\_exit

    ```text
    the agent ended in the middle of a turn
    ```

    **Problem:** session/prompt: Internal error: the agent ended (-32603)

    ```text
    phase: turn
    exit: killed by signal 9
    out of memory
    hint: acpbox logs 0197-s
    ```

    <sub>\_acpbox/new/thing {"a":1}</sub>
    "###);
}
