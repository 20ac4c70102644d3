//! Landlock scopes: abstract sockets and signals end at the guest.
//!
//! A guest on the host's network shares its namespace of abstract unix
//! sockets (session buses, X servers). Landlock ABI 6 can close them.

/// From linux/landlock.h, ABI 6.
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
const SCOPE_SIGNAL: u64 = 1 << 1;
const CREATE_RULESET_VERSION: u32 = 1 << 0;

/// `struct landlock_ruleset_attr` as of ABI 6.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Whether this kernel can scope abstract sockets and signals.
pub(crate) fn scopes_are_supported() -> bool {
    // SAFETY: with the version flag the kernel reads no memory of ours.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<RulesetAttributes>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    version >= 6
}

/// Scopes this process and all that it starts.
pub(super) fn restrict() -> std::io::Result<()> {
    let attributes = RulesetAttributes {
        handled_access_fs: 0,
        handled_access_net: 0,
        scoped: SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL,
    };
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the attributes outlive the call and their size is told; the
    // descriptor is the kernel's answer, used and closed right here.
    unsafe {
        let ruleset = libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size_of::<RulesetAttributes>(),
            0_u32,
        );
        if ruleset < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let outcome = libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0_u32);
        let error = std::io::Error::last_os_error();
        libc::close(ruleset as i32);
        if outcome < 0 { Err(error) } else { Ok(()) }
    }
}
