//! How much memory the allocator keeps for later.

/// glibc's own thresholds for mapping and for giving back, bytes (mallopt(3)).
#[cfg(target_env = "gnu")]
const THRESHOLD: i32 = 128 * 1024;

/// Keeps glibc's thresholds where they begin. Otherwise they rise with each large piece that is
/// freed, up to 64 MiB: one large slice that was read once would stay in the process for ever. To
/// be called before there are threads.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        #[expect(unsafe_code, reason = "the C library has no other way to be told")]
        // SAFETY: mallopt takes two numbers, and no other thread allocates yet. That it may refuse
        // them costs memory only.
        let _ = unsafe { libc::mallopt(parameter, THRESHOLD) };
    }
}
