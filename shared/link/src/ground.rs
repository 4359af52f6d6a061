//! What endpoints stand on where that is not the system: a simulated network.

use quinn::AsyncUdpSocket;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// A simulated network. Time passes for endpoints as it does in the tokio runtime that they are
/// made in.
pub trait Ground: Debug + Send + Sync {
    /// A socket at `address`, where port 0 takes a free one.
    ///
    /// # Errors
    /// What a system says whose sockets are used up.
    fn socket(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Where an endpoint's random choices begin, packet numbers that it skips for example. Keys and
    /// connection ids are the system's all the same.
    fn seed(&self) -> [u8; 32];
}
