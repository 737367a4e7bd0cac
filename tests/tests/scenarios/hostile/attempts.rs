//! What a hostile agent tries, by name: a script each, which exits with 0 when it got what it wanted.
//!
//! Its environment says where everything is, as an agent could find out or guess: of the executor `DATA`, `EXECUTOR` (pid),
//! `PROGRAMS`, `SETTINGS`, `JOIN_TOKEN`, `SOCKETS`; of another attempt `VICTIM` (uuid), `WORK`, `THEIR_HOME`, `THEIR_TMP`,
//! `SHIM` and `AGENT` (pids), `STORE` and `BLOB`; of the controller `CONTROLLER`; and `SETUID`, root's program for all.

/// One attempt.
pub(crate) struct Attack {
    /// What it is about.
    pub(crate) name: &'static str,
    /// Exits with 0 when it succeeds.
    pub(crate) script: &'static str,
    /// Where nothing separates an ordinary user's agent from its executor it succeeds: the script can.
    pub(crate) control: Control,
}

/// What the same script does without any separation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// It succeeds.
    Succeeds,
    /// It fails there too: an ordinary user's rights are not enough.
    Fails,
}

use Control::{Fails, Succeeds};

const fn attack(name: &'static str, control: Control, script: &'static str) -> Attack {
    Attack { name, script, control }
}

/// Traces a process without stopping it, as a debugger begins.
const SEIZE: &str =
    r#"perl -e 'exit(syscall(`uname -m` =~ /x86_64/ ? 101 : 117, 0x4206, $ENV{SHIM} + 0, 0, 0) == 0 ? 0 : 1)'"#;

/// Takes the first descriptor of a process for its own.
const TAKE: &str =
    r#"perl -e 'my $of = syscall(434, $ENV{SHIM} + 0, 0); exit($of >= 0 && syscall(438, $of, 0, 0) >= 0 ? 0 : 1)'"#;

/// Is told what happens in a directory.
const WATCH: &str = r#"perl -e 'my ($begin, $add) = `uname -m` =~ /x86_64/ ? (294, 254) : (26, 27);
    my $path = "$ENV{WORK}/.git"; exit(syscall($add, syscall($begin, 0), $path, 0xfff) >= 0 ? 0 : 1)'"#;

/// Looks for a key among those that the kernel keeps for an account.
const KEY: &str = r#"perl -e 'my ($kind, $name) = ("user", "theirs-$ENV{VICTIM}");
    exit(syscall(`uname -m` =~ /x86_64/ ? 250 : 219, 10, -5, $kind, $name, 0) >= 0 ? 0 : 1)'"#;

/// Leaves a key with its account, for the minute that it takes.
const LEAVE: &str = r#"perl -e 'my ($kind, $name, $key) = ("user", "left-by-$ENV{SCULPT_ATTEMPT}", "secret");
    my ($add, $ctl) = `uname -m` =~ /x86_64/ ? (248, 250) : (217, 219); my $left = syscall($add, $kind, $name, $key, 6, -5);
    exit($left >= 0 && syscall($ctl, 15, $left, 60) >= 0 ? 0 : 1)'"#;

/// Removes the memory that another attempt shares with itself.
const SHARED: &str = r#"perl -e 'my $id = shmget hex substr($ENV{VICTIM}, -7), 64, 0600;
    exit(defined $id && shmctl($id, 0, 0) ? 0 : 1)'"#;

/// All of them.
pub(crate) const ATTACKS: [Attack; 59] = [
    // The executor's own.
    attack("reads_the_executors_key", Succeeds, r#"cat "$DATA/identity/key.pem""#),
    attack("reads_the_key_through_a_symlink", Succeeds, r#"ln -s "$DATA/identity/key.pem" link && cat link"#),
    attack("reads_the_key_through_a_hard_link", Succeeds, r#"ln "$DATA/identity/key.pem" hard && cat hard"#),
    attack("reads_the_key_through_proc", Succeeds, r#"cat "/proc/$EXECUTOR/root$DATA/identity/key.pem""#),
    attack(
        "reads_the_key_as_root_of_a_user_namespace",
        Succeeds,
        r#"unshare --user --map-root-user cat "$DATA/identity/key.pem""#,
    ),
    attack(
        "mounts_the_executors_directory",
        Succeeds,
        r#"mkdir mnt && unshare --user --map-root-user --mount sh -c 'mount --bind "$DATA" mnt && cat mnt/identity/key.pem'"#,
    ),
    attack("writes_the_executors_key", Succeeds, r#": >> "$DATA/identity/key.pem""#),
    attack("reads_a_join_token", Succeeds, r#"cat "$JOIN_TOKEN""#),
    attack("reads_the_executors_settings", Succeeds, r#"cat "$SETTINGS""#),
    attack("changes_who_the_executor_is", Succeeds, r#"[ -e "$DATA/executor.json" ] && : >> "$DATA/executor.json""#),
    attack(
        "plants_a_program_of_the_executor",
        Fails,
        r#"[ -e "$PROGRAMS/sculpt" ] && : > "$PROGRAMS/planted" && rm "$PROGRAMS/planted""#,
    ),
    attack("reads_the_controllers_authority", Succeeds, r#"cat "$CONTROLLER/authority/tls.pem""#),
    attack("reads_the_administrators_token", Succeeds, r#"cat "$CONTROLLER/tokens/user""#),
    attack("lists_the_attempts", Succeeds, r#"ls "$DATA/attempts" | grep -q "$VICTIM""#),
    // What is recorded of an attempt.
    attack("reads_another_attempts_journal", Succeeds, r#"cat "$DATA/attempts/$VICTIM/journal""#),
    attack("writes_its_own_journal", Succeeds, r#": >> "$DATA/attempts/$SCULPT_ATTEMPT/journal""#),
    attack("reads_another_attempts_secrets", Succeeds, r#"grep -q "$NEEDLE" "$DATA/attempts/$VICTIM/launch.json""#),
    attack("reads_another_attempts_log", Succeeds, r#"cat "$DATA/attempts/$VICTIM/spool/"*"#),
    attack(
        "changes_its_own_log",
        Succeeds,
        r#"cd "$DATA/attempts/$SCULPT_ATTEMPT/spool" && for file in *; do : >> "$file" || exit 1; done"#,
    ),
    attack("writes_its_own_end", Succeeds, r#": >> "$DATA/attempts/$SCULPT_ATTEMPT/exit.json""#),
    attack("writes_another_attempts_end", Succeeds, r#": >> "$DATA/attempts/$VICTIM/exit.json""#),
    attack(
        "takes_another_attempts_files_away",
        Succeeds,
        r#"mv "$DATA/attempts/$VICTIM/account.json" . || mv "$DATA/attempts/$VICTIM/shim.log" ."#,
    ),
    // What another attempt works on.
    attack("reads_another_attempts_workspace", Succeeds, r#"cat "$WORK/secret""#),
    attack("writes_another_attempts_workspace", Succeeds, r#": > "$WORK/planted""#),
    attack("plants_a_hook_for_another_attempt", Succeeds, r#": > "$WORK/.git/hooks-planted""#),
    attack("reads_another_attempts_home", Succeeds, r#"cat "$THEIR_HOME/secret-home""#),
    attack("reads_another_attempts_temporary_files", Succeeds, r#"cat "$THEIR_TMP""#),
    attack("writes_another_attempts_temporary_files", Succeeds, r#"[ -e "$THEIR_TMP" ] && : >> "$THEIR_TMP""#),
    attack("reads_another_projects_store", Succeeds, r#"cat "$STORE/HEAD""#),
    attack(
        "borrows_another_projects_objects",
        Succeeds,
        r#"git init -q thief && echo "$STORE/objects" > thief/.git/objects/info/alternates && git -C thief cat-file -e "$BLOB""#,
    ),
    attack("plants_objects_for_other_attempts", Succeeds, r#"cd "$OWN_STORE/objects" && : > planted && rm planted"#),
    // Processes.
    attack("signals_the_executor", Succeeds, r#"kill -0 "$EXECUTOR""#),
    attack("signals_another_shim", Succeeds, r#"kill -0 "$SHIM""#),
    attack("signals_another_agent", Succeeds, r#"kill -0 "$AGENT""#),
    attack("traces_another_shim", Succeeds, SEIZE),
    attack("reads_the_memory_of_the_executor", Succeeds, r#"head -c 1 "/proc/$EXECUTOR/maps" | grep -q ."#),
    attack("reads_the_environment_of_the_executor", Succeeds, r#"grep -q . "/proc/$EXECUTOR/environ""#),
    attack("reads_the_environment_of_another_agent", Succeeds, r#"grep -q "$NEEDLE" "/proc/$AGENT/environ""#),
    attack(
        "finds_a_secret_among_arguments",
        Fails,
        r#"printf "the-%s" "$HALF" > wanted; cat /proc/[0-9]*/cmdline | grep -qaf wanted"#,
    ),
    attack("enters_another_agents_directory", Succeeds, r#"cat "/proc/$AGENT/cwd/secret""#),
    attack("takes_a_descriptor_of_another_shim", Succeeds, TAKE),
    attack("makes_another_shim_go_first_when_memory_is_short", Succeeds, r#"echo 500 > "/proc/$SHIM/oom_score_adj""#),
    attack("slows_another_agent_down", Succeeds, r#"renice -n 1 -p "$AGENT""#),
    attack("limits_another_shim", Succeeds, r#"prlimit --pid "$SHIM" --core=0"#),
    attack("watches_another_attempts_workspace", Succeeds, WATCH),
    attack("writes_on_another_agents_terminal", Succeeds, r#"[ -e "$TERMINAL" ] && : >> "$TERMINAL""#),
    // What the kernel keeps beyond files.
    attack("finds_another_attempts_key", Succeeds, KEY),
    attack("leaves_a_key_with_its_account", Succeeds, LEAVE),
    attack("removes_another_attempts_shared_memory", Succeeds, SHARED),
    attack("says_where_the_kernel_dumps", Fails, r": >> /proc/sys/kernel/core_pattern"),
    // Sockets.
    attack("reaches_the_controllers_database", Succeeds, r#"connect "$DATABASE""#),
    attack("talks_to_its_own_shim", Succeeds, r#"connect "$SOCKETS/$SCULPT_ATTEMPT/control/shim""#),
    attack("talks_to_another_shim", Succeeds, r#"connect "$SOCKETS/$VICTIM/control/shim""#),
    attack("looks_over_another_agents_shoulder", Succeeds, r#"connect "$SOCKETS/$VICTIM/view/shim""#),
    attack(
        "plants_a_socket_for_the_executor",
        Succeeds,
        r#"cd "$SOCKETS/$SCULPT_ATTEMPT/control" && : > planted && rm planted"#,
    ),
    // Rights and limits.
    attack("becomes_root_by_a_setuid_program", Succeeds, r#"[ "$("$SETUID" -u)" = 0 ]"#),
    attack(
        "holds_a_descriptor_beyond_the_three",
        Fails,
        // The one by which the directory was read is gone when they are looked at.
        r#"for held in /proc/$$/fd/*; do case "$held" in */[012]) ;; *) [ -L "$held" ] && exit 0; esac; done; exit 1"#,
    ),
    attack("may_gain_rights", Succeeds, r"grep -q 'NoNewPrivs:.0' /proc/self/status"),
    attack(
        "leaves_its_cgroup",
        Fails,
        r#"for file in $(find /sys/fs/cgroup -maxdepth 3 -name cgroup.procs); do echo 0 > "$file" && exit 0; done; exit 1"#,
    ),
];
