//! What tmux keeps from somebody who may only type. All who look at a window share its active pane, to which goes what is typed:
//! beside them that is the agent's, as another has a shell. And all who look at a pane share its modes, whose keys go before those
//! of anybody's session; those that list and choose have a prompt for commands, which lead to a shell.

/// True while somebody sits there who may only type: in a session of their own, of the same group.
macro_rules! beside {
    () => {
        "#{e|>:#{session_group_size},1}"
    };
}

/// The agent's pane: the first of its server.
macro_rules! pane {
    () => {
        "%0"
    };
}

pub(super) const PANE: &str = pane!();

/// The window that it began in.
pub(super) const WINDOW: &str = "@0";

/// A key that begins such a mode or another pane, while nobody sits there who may not have it.
macro_rules! alone {
    ($key:literal, $begins:literal) => {
        &[
            "bind-key",
            $key,
            "if-shell",
            "-F",
            beside!(),
            "display-message 'not beside somebody who may only type'",
            $begins,
        ]
    };
}

/// Ends the mode of the pane that they see, whatever has brought it before them.
macro_rules! ended {
    ($hook:literal) => {
        &[
            "set-hook",
            "-g",
            $hook,
            concat!(
                "if-shell -F '#{&&:#{&&:#{pane_in_mode},",
                beside!(),
                "},#{?#{m/r:^(copy|view)-mode$,#{pane_mode}},,1}}' 'copy-mode -q'"
            ),
        ]
    };
}

/// What keeps such modes from beginning, and ends one that a command has begun or that was left in a pane that nobody saw. Reading
/// back stays: its prompts take no command.
pub(super) const KEPT: [&[&str]; 12] = [
    alone!("w", "choose-tree -Zw"),
    alone!("s", "choose-tree -Zs"),
    alone!("D", "choose-client -Z"),
    alone!("=", "choose-buffer -Z"),
    alone!("C", "customize-mode -Z"),
    alone!("f", "command-prompt { find-window -Z -- '%%' }"),
    alone!("%", "split-window -h"),
    alone!("\"", "split-window"),
    ended!("pane-mode-changed"),
    ended!("window-pane-changed"),
    ended!("session-window-changed"),
    &[
        "set-hook",
        "-g",
        "window-pane-changed[1]",
        concat!("if-shell -F '#{&&:", beside!(), ",#{!=:#{pane_id},", pane!(), "}}' 'select-pane -t ", pane!(), "'"),
    ],
];
