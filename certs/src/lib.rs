//! The PKI of both sides: the authority and the certificates it issues, one-time enrolment tokens,
//! the seal, the persisted transport keys, and TLS settings that know roles instead of host names.
//!
//! Owns key files and nothing else: no sockets, no clock (times come in as values), no store of
//! tokens (the coordinator's fleet keeps [`TokenRecord`]s).
//!
//! Invariant: a private key or secret is written only to a file that its owner alone can read, and
//! never appears in an error or in `Debug` output.

mod access;
mod api;
mod authority;
mod clock;
mod files;
mod hex;
mod identity;
mod node;
mod rotation;
mod seal;
mod tls;
mod token;
mod verify;

pub use access::AccessToken;
pub use api::{ApiTlsError, api_credential, api_server, api_server_of_files};
pub use authority::{Authority, AuthorityError, Issued, TransportKeys, is_issued_by, valid_until};
pub use clock::{Clock, WRITTEN, believable};
pub use files::FilesError;
pub use hex::HexError;
pub use identity::{Caller, Fingerprint, NameError, Peer, Refusal, Role, Subject, check_name};
pub use node::{
    Certified, Credential, Enrolled, NodeKey, NodeKeyError, Times, first_id, kept_certificate,
};
pub use rotation::pem;
pub use seal::SealKey;
pub use tls::{
    ALPN, ALPN_CERTIFICATE, ClientTls, Holder, SERVER_NAME, TlsError, Trusted, Verdict,
    enrol_client, provider, renewal_client, server, session_client,
};
pub use token::{
    Admission, Presented, Token, TokenError, TokenId, TokenRecord, TokenRefusal, TokenUse,
};
