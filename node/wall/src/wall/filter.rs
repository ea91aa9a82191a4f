//! The seccomp filters: which system calls a child has left.
//!
//! A call that is not listed fails with `EPERM`, so that a library that asks for more than it needs
//! goes on. The one exception is `clone3`, whose arguments lie in memory where a filter can't look:
//! it does not exist (`ENOSYS`), and the C library falls back to `clone`, whose flags are compared.
//!
//! Filters stack, and of two refusals the newer filter's error number counts. So the filter that
//! hides `clone3` goes in first and the list, which lets it pass, second.

use std::collections::BTreeMap;
use std::io;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter_all_threads,
};

use super::WallError;
use SeccompAction::Allow;

/// The error number of a call that is not listed.
pub(super) const REFUSED: c_int = libc::EPERM;
/// The error number of `clone3`.
pub(super) const HIDDEN: c_int = libc::ENOSYS;

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before the wall: what is below, opening for reading, threads, and putting up the wall.
    Loading,
    /// The wall.
    Closed {
        /// Threads may be started.
        threads: bool,
    },
}

/// Installs the filters of this stage, for good.
pub(super) fn apply(stage: Stage) -> Result<(), WallError> {
    let listed = program(allowed(stage)?, SeccompAction::Errno(REFUSED.cast_unsigned()), Allow)?;
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let hidden = SeccompAction::Errno(HIDDEN.cast_unsigned());
    install(&program(clone3, Allow, hidden)?)?;
    install(&listed)
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Reading and writing what is open, memory, time, waiting, ending. No path, no socket, no process.
const LISTED: &[c_long] = &[
    // what is open
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_close,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    // waiting
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // memory; `memfd_create` takes a name, not a path, and what it makes can't be executed
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    // time, chance, processors
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getcpu,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    // threads that run
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    // own signals
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // the end
    libc::SYS_exit,
    libc::SYS_exit_group,
    // hidden by its own filter
    libc::SYS_clone3,
    // the same as above under names that only this processor has
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// What a library needs on top to load a file by its path, and [`super::enter`] to follow.
const LOADING: &[c_long] = &[
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_readlinkat,
    libc::SYS_sched_setaffinity,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_setrlimit,
];

/// What the C library passes to `clone` for a thread, and nothing else: with `CLONE_THREAD` it is
/// no process, and no namespace flag can be among them.
const THREAD_FLAGS: c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;

fn allowed(stage: Stage) -> Result<Rules, WallError> {
    let mut rules: Rules = LISTED.iter().map(|call| (*call, Vec::new())).collect();

    // A message on a connected socket, without an address, which could be a path.
    rules.insert(libc::SYS_sendto, vec![rule(&[equal(4, Width::Qword, 0)?])?]);
    // Only what can't send signals, as `F_SETOWN` could.
    let commands = [libc::F_GETFD, libc::F_GETFL, libc::F_DUPFD_CLOEXEC, libc::F_ADD_SEALS];
    rules.insert(libc::SYS_fcntl, any_of(1, &commands)?);
    // A signal to a thread of this process, for `abort`.
    let this = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    rules.insert(libc::SYS_tgkill, any_of(0, &[this])?);
    // Limits can be read, of this process; not set.
    let own_limits = rule(&[equal(0, Width::Dword, 0)?, equal(2, Width::Qword, 0)?])?;
    rules.insert(libc::SYS_prlimit64, vec![own_limits]);
    // Names of threads and of memory.
    rules.insert(libc::SYS_prctl, any_of(0, &[libc::PR_SET_NAME, libc::PR_SET_VMA])?);

    let threads = match stage {
        Stage::Loading => true,
        Stage::Closed { threads } => threads,
    };
    if threads {
        // musl adds a flag that has meant nothing since Linux 2.6.2.
        let mask = u64::from(!libc::CLONE_DETACHED.cast_unsigned());
        let flags = condition(0, Width::Dword, Op::MaskedEq(mask), unsigned(THREAD_FLAGS))?;
        rules.insert(libc::SYS_clone, vec![rule(&[flags])?]);
    }
    if stage == Stage::Loading {
        rules.extend(LOADING.iter().map(|call| (*call, Vec::new())));
        let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
        let reading = condition(2, Width::Dword, Op::MaskedEq(unsigned(writing)), 0)?;
        rules.insert(libc::SYS_openat, vec![rule(&[reading])?]);
        #[cfg(target_arch = "x86_64")]
        {
            let reading = condition(1, Width::Dword, Op::MaskedEq(unsigned(writing)), 0)?;
            rules.insert(libc::SYS_open, vec![rule(&[reading])?]);
        }
    }
    Ok(rules)
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, WallError> {
    let arch = std::env::consts::ARCH.try_into().map_err(refused)?;
    let filter = SeccompFilter::new(rules, otherwise, listed, arch).map_err(refused)?;
    BpfProgram::try_from(filter).map_err(refused)
}

/// Asks the kernel whether it takes a filter, by handing it none.
pub(super) fn ask() -> Result<(), WallError> {
    let none = std::ptr::null::<libc::c_void>();
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: the kernel finds no program to read at the address, and changes nothing.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, none) };
    let source = io::Error::last_os_error();
    // It looked for a program, so it knows what to do with one (seccomp(2), EFAULT).
    if answer == -1 && source.raw_os_error() == Some(libc::EFAULT) {
        return Ok(());
    }
    Err(WallError::Refused { step: "filter calls", source })
}

fn install(program: &BpfProgram) -> Result<(), WallError> {
    apply_filter_all_threads(program).map_err(|error| WallError::Refused {
        step: "filter calls",
        source: io::Error::other(error),
    })
}

fn any_of(argument: u8, values: &[c_int]) -> Result<Vec<SeccompRule>, WallError> {
    values.iter().map(|value| rule(&[equal(argument, Width::Dword, unsigned(*value))?])).collect()
}

fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule, WallError> {
    SeccompRule::new(conditions.to_vec()).map_err(refused)
}

fn equal(argument: u8, width: Width, value: u64) -> Result<SeccompCondition, WallError> {
    condition(argument, width, Op::Eq, value)
}

fn condition(
    argument: u8,
    width: Width,
    op: Op,
    value: u64,
) -> Result<SeccompCondition, WallError> {
    SeccompCondition::new(argument, width, op, value).map_err(refused)
}

fn unsigned(value: c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

fn refused(error: seccompiler::BackendError) -> WallError {
    WallError::Refused { step: "filter calls", source: io::Error::other(error) }
}
