//! What this project depends on and what it does not: the tables that the audit enforces.

/// A crate that may not be used at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Banned {
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
}

/// A heavy crate that only some packages may name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    pub(crate) name: &'static str,
    pub(crate) owners: &'static [&'static str],
    pub(crate) reason: &'static str,
}

/// A crate that is built in several versions, known and borne.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Duplicate {
    pub(crate) name: &'static str,
    /// Its release lines: `1` for 1.2.3, `0.4` for 0.4.7.
    pub(crate) lines: &'static [&'static str],
    /// Who needs which, for the one who wants to end it.
    pub(crate) reason: &'static str,
}

/// What a package of this workspace may depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    pub(crate) package: &'static str,
    /// Packages of this workspace that it may name.
    pub(crate) may_use: &'static [&'static str],
    /// Crates that it may not reach, not even behind others.
    pub(crate) never: &'static [&'static str],
}

/// Licences that are accepted; of a choice (`A OR B`) one is enough.
pub(crate) const LICENCES: &[&str] = &[
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
];

/// Crates that must not come in, neither directly nor behind others.
pub(crate) const BANNED: &[Banned] = &[
    Banned {
        name: "openssl",
        reason: "TLS is rustls with ring: no system library on gateways",
    },
    Banned {
        name: "openssl-sys",
        reason: "TLS is rustls with ring",
    },
    Banned {
        name: "native-tls",
        reason: "TLS is rustls with ring",
    },
    Banned {
        name: "aws-lc-rs",
        reason: "a second crypto provider; needs cmake, we use ring",
    },
    Banned {
        name: "aws-lc-sys",
        reason: "a second crypto provider; needs cmake, we use ring",
    },
    Banned {
        name: "serde_yaml",
        reason: "unmaintained, and it loses positions",
    },
    Banned {
        name: "serde_yml",
        reason: "unmaintained fork of serde_yaml",
    },
    Banned {
        name: "bincode",
        reason: "unmaintained; the wire format is postcard",
    },
    Banned {
        name: "heapless",
        reason: "postcard's default; brings atomic-polyfill",
    },
    Banned {
        name: "atomic-polyfill",
        reason: "RUSTSEC-2023-0089",
    },
    Banned {
        name: "chrono",
        reason: "cores use plain nanoseconds; for display jiff is lighter",
    },
    Banned {
        name: "async-std",
        reason: "discontinued; the shells use tokio",
    },
    Banned {
        name: "nix",
        reason: "system calls go through rustix",
    },
];

/// Heavy crates with the packages that may name them.
pub(crate) const OWNED: &[Owned] = &[
    Owned {
        name: "redb",
        owners: &[
            "edge-store",
            "cloud-store",
            "tablefile",
            "hostile",
            "sim",
            "bench",
            "e2e",
        ],
        reason: "everybody else goes through the store's interface",
    },
    Owned {
        name: "quinn",
        owners: &["link", "edge-agent", "cloud", "stack", "e2e", "bench"],
        reason: "the link belongs to the two shells; tests speak to it and measure beside it",
    },
    Owned {
        name: "axum",
        owners: &["cloud"],
        reason: "only the coordinator serves HTTP",
    },
    Owned {
        name: "rcgen",
        owners: &["certs"],
        reason: "certificates are made in one place",
    },
];

/// Crates in several versions. Each costs build time; none of these is ours to unify.
pub(crate) const DUPLICATES: &[Duplicate] = &[
    Duplicate {
        name: "embedded-io",
        lines: &["0.4", "0.6"],
        reason: "postcard 1 offers both as features; neither is built",
    },
    Duplicate {
        name: "getrandom",
        lines: &["0.2", "0.4"],
        reason: "ring 0.17 asks for 0.2; tempfile, rand and proptest for newer ones",
    },
    Duplicate {
        name: "hashbrown",
        lines: &["0.15", "0.17"],
        reason: "petgraph 0.8 asks for 0.15, indexmap for 0.17",
    },
    Duplicate {
        name: "syn",
        lines: &["2", "3"],
        reason: "derive macros move to 3 one by one",
    },
    Duplicate {
        name: "synstructure",
        lines: &["0.13", "0.14"],
        reason: "follows syn",
    },
    Duplicate {
        name: "thiserror",
        lines: &["1", "2"],
        reason: "nvml-wrapper 0.12 asks for 1, everybody else for 2",
    },
    Duplicate {
        name: "thiserror-impl",
        lines: &["1", "2"],
        reason: "nvml-wrapper 0.12 asks for 1, everybody else for 2",
    },
    Duplicate {
        name: "windows-sys",
        lines: &["0.52", "0.61"],
        reason: "ring asks for 0.52; never built, gateways are Linux",
    },
];

/// Runtimes, sockets, disks, clocks and randomness: what a core must not reach.
const NO_IO: &[&str] = &[
    "tokio",
    "quinn",
    "redb",
    "rustls",
    "rustix",
    "mio",
    "socket2",
    "rand",
    "getrandom",
    "ureq",
];

const EDGE: &[&str] = &["shared", "edge-core", "tablefile"];
const CLOUD: &[&str] = &["shared", "cloud-core", "tablefile"];
const NOTHING: &[&str] = &[];

/// The layers, lowest first; the two sides never depend on each other.
pub(crate) const LAYERS: &[Layer] = &[
    Layer {
        package: "shared",
        may_use: NOTHING,
        never: NO_IO,
    },
    Layer {
        package: "contents",
        may_use: &["shared"],
        never: &["tokio", "quinn", "rustls", "redb"],
    },
    Layer {
        package: "bundle",
        may_use: &["shared"],
        never: &["tokio", "quinn", "rustls", "redb"],
    },
    Layer {
        package: "host",
        may_use: &["shared"],
        never: &["tokio", "quinn", "rustls", "redb"],
    },
    Layer {
        package: "tablefile",
        may_use: NOTHING,
        never: &["tokio", "quinn", "rustls"],
    },
    Layer {
        package: "link",
        may_use: &["shared", "certs", "contents"],
        never: NOTHING,
    },
    Layer {
        package: "certs",
        may_use: &["shared"],
        never: &["tokio", "quinn", "redb"],
    },
    Layer {
        package: "edge-core",
        may_use: &["shared"],
        never: NO_IO,
    },
    Layer {
        package: "edge-store",
        may_use: EDGE,
        never: &["tokio", "quinn", "rustls"],
    },
    Layer {
        package: "edge-exec",
        may_use: &["shared", "contents", "edge-core"],
        never: &["quinn", "redb", "rustls"],
    },
    Layer {
        package: "edge-agent",
        may_use: &[
            "shared",
            "contents",
            "bundle",
            "host",
            "link",
            "certs",
            "edge-core",
            "edge-store",
            "edge-exec",
            "tablefile",
        ],
        never: &["axum", "ureq"],
    },
    Layer {
        package: "cloud-core",
        may_use: &["shared"],
        never: NO_IO,
    },
    Layer {
        package: "cloud-store",
        may_use: CLOUD,
        never: &["tokio", "quinn", "rustls"],
    },
    Layer {
        package: "cloud",
        may_use: &[
            "shared",
            "contents",
            "link",
            "certs",
            "cloud-core",
            "cloud-store",
        ],
        never: NOTHING,
    },
    Layer {
        package: "driftless",
        may_use: &[
            "shared",
            "contents",
            "bundle",
            "host",
            "link",
            "certs",
            "edge-core",
            "edge-store",
            "edge-exec",
            "edge-agent",
            "cloud-core",
            "cloud-store",
            "cloud",
            "relay",
            "sim",
            "tablefile",
        ],
        never: NOTHING,
    },
    Layer {
        package: "relay",
        may_use: NOTHING,
        never: &["quinn", "rustls", "redb"],
    },
    Layer {
        package: "sim",
        may_use: &[
            "shared",
            "edge-core",
            "edge-store",
            "cloud-core",
            "cloud-store",
            "tablefile",
        ],
        never: &["tokio", "quinn"],
    },
    Layer {
        package: "stack",
        may_use: &[
            "shared",
            "contents",
            "certs",
            "link",
            "edge-core",
            "edge-agent",
            "edge-exec",
            "cloud-core",
            "cloud",
            "sim",
        ],
        never: NOTHING,
    },
    Layer {
        package: "model",
        may_use: NOTHING,
        never: NOTHING,
    },
    Layer {
        package: "hostile",
        may_use: &[
            "shared",
            "link",
            "certs",
            "edge-core",
            "edge-store",
            "edge-agent",
            "cloud-core",
            "cloud-store",
            "cloud",
        ],
        never: NOTHING,
    },
    Layer {
        package: "mutants",
        may_use: NOTHING,
        never: NOTHING,
    },
    Layer {
        package: "e2e",
        may_use: &[
            "relay",
            "shared",
            "link",
            "certs",
            "edge-core",
            "edge-store",
            "cloud-core",
            "cloud-store",
        ],
        never: NOTHING,
    },
    Layer {
        package: "bench",
        may_use: &[
            "shared",
            "contents",
            "link",
            "certs",
            "edge-core",
            "edge-store",
            "edge-exec",
            "edge-agent",
            "cloud-core",
            "cloud-store",
        ],
        never: NOTHING,
    },
    Layer {
        package: "xtask",
        may_use: NOTHING,
        never: NOTHING,
    },
];
