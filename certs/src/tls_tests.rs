//! Real handshakes between our settings, in memory.

use super::*;
use crate::authority::leaf;
use crate::clock::{WRITTEN, believable};
use crate::identity::{Caller, Peer, Role};
use crate::verify::Worded;
use crate::{Authority, NodeKey, Token};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, PKCS_ED25519};
use rustls::{ClientConnection, Error, ServerConnection};
use shared::ids::NodeId;
use shared::time::Unix;

const DAY: Span = Span::secs(86_400);
const ID: NodeId = NodeId([5; 16]);

fn at(time: Unix) -> Clock {
    Clock::new(move || time)
}

fn later(span: Span) -> Unix {
    Unix(WRITTEN.0 + span.0 as i64)
}

fn coordinator(authority: &Authority, validity: Span) -> Holder {
    Holder::new(&authority.coordinator(WRITTEN, validity).unwrap()).unwrap()
}

fn trusting(authorities: &[&Authority]) -> Trusted {
    let list: Vec<_> = authorities
        .iter()
        .map(|one| one.certificate().clone())
        .collect();
    Trusted::new(&list).unwrap()
}

fn node(authority: &Authority, validity: Span) -> Holder {
    let key = NodeKey::ephemeral().unwrap();
    let request = key.request().unwrap();
    let issued = authority
        .node(&request, ID, "gw-7", WRITTEN, validity)
        .unwrap();
    let enrolled = key.accept(&issued, authority.fingerprint()).unwrap();
    Holder::new(&enrolled.credential).unwrap()
}

/// What a handshake came to: the peer that the server sees, or the error of the side that gave up.
#[derive(Debug)]
enum Outcome {
    Done(Peer),
    Client(Refusal),
    Server(Refusal),
}

fn server_refusal(error: Error) -> Refusal {
    let Error::InvalidCertificate(rustls::CertificateError::Other(other)) = &error else {
        panic!("not a typed refusal: {error}");
    };
    other
        .0
        .downcast_ref::<Worded>()
        .expect("a refusal")
        .0
        .clone()
}

fn shake(server: ServerConfig, client: ClientTls, now: Unix) -> Outcome {
    let name = SERVER_NAME.try_into().unwrap();
    let mut client_side = ClientConnection::new(Arc::new(client.config), name).unwrap();
    let mut server_side = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client_side.wants_write() {
            client_side.write_tls(&mut wire).unwrap();
        }
        server_side.read_tls(&mut wire.as_slice()).unwrap();
        if let Err(error) = server_side.process_new_packets() {
            return Outcome::Server(server_refusal(error));
        }
        let mut wire = Vec::new();
        while server_side.wants_write() {
            server_side.write_tls(&mut wire).unwrap();
        }
        client_side.read_tls(&mut wire.as_slice()).unwrap();
        if client_side.process_new_packets().is_err() {
            return Outcome::Client(client.verdict.take().expect("a typed refusal"));
        }
    }
    assert!(!client_side.is_handshaking() && !server_side.is_handshaking());
    let peer = Peer::of(server_side.peer_certificates(), now).unwrap();
    let spoken = match &peer {
        Peer::Anonymous => ALPN_CERTIFICATE,
        _ => ALPN,
    };
    assert_eq!(server_side.alpn_protocol(), Some(spoken));
    Outcome::Done(peer)
}

/// A fleet's coordinator and settings to dial it, all at one time.
fn dial(authority: &Authority, shown: &Holder, client: ClientTls, now: Unix) -> Outcome {
    let server = server(&trusting(&[authority]), shown, at(now), DAY).unwrap();
    shake(server, client, now)
}

fn session(trusted: &Authority, shown: &Holder, now: Unix) -> ClientTls {
    session_client(&[trusted.certificate().clone()], shown, at(now)).unwrap()
}

#[test]
fn a_newcomer_with_a_token_and_an_enrolled_node_are_let_in_as_what_they_are() {
    let authority = Authority::ephemeral().unwrap();
    let server = coordinator(&authority, DAY);
    let (token, _) = Token::create(authority.fingerprint(), later(DAY), None, false);
    let enrol = enrol_client(token.authority, at(WRITTEN)).unwrap();
    let outcome = dial(&authority, &server, enrol, WRITTEN);
    assert!(
        matches!(outcome, Outcome::Done(Peer::Anonymous)),
        "{outcome:?}"
    );

    let client = session(&authority, &node(&authority, DAY), WRITTEN);
    let outcome = dial(&authority, &server, client, WRITTEN);
    let Outcome::Done(Peer::Node(Caller { id, name, .. })) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((id, name.as_str()), (ID, "gw-7"));
}

#[test]
fn a_token_of_another_fleet_meets_no_coordinator() {
    let authority = Authority::ephemeral().unwrap();
    let other = Authority::ephemeral().unwrap();
    let enrol = enrol_client(other.fingerprint(), at(WRITTEN)).unwrap();
    let outcome = dial(&authority, &coordinator(&authority, DAY), enrol, WRITTEN);
    let wanted = other.fingerprint();
    assert!(
        matches!(&outcome, Outcome::Client(found) if *found == Refusal::WrongFingerprint { wanted })
    );
    // Showing the pinned certificate does not help who has not its key.
    let theirs = coordinator(&authority, DAY).current();
    let chain = vec![theirs.cert[0].clone(), other.certificate().clone()];
    let posing = Holder(Arc::new(RwLock::new(Arc::new(CertifiedKey::new(
        chain,
        theirs.key.clone(),
    )))));
    let enrol = enrol_client(other.fingerprint(), at(WRITTEN)).unwrap();
    let outcome = dial(&authority, &posing, enrol, WRITTEN);
    assert!(
        matches!(outcome, Outcome::Client(Refusal::Foreign)),
        "{outcome:?}"
    );
}

#[test]
fn foreign_certificates_are_refused_on_both_sides() {
    let authority = Authority::ephemeral().unwrap();
    let foreign = Authority::ephemeral().unwrap();
    let server = coordinator(&authority, DAY);
    let client = session(&authority, &node(&foreign, DAY), WRITTEN);
    let outcome = dial(&authority, &server, client, WRITTEN);
    assert!(
        matches!(outcome, Outcome::Server(Refusal::Foreign)),
        "{outcome:?}"
    );
    let client = session(&foreign, &node(&foreign, DAY), WRITTEN);
    let outcome = dial(&authority, &server, client, WRITTEN);
    assert!(
        matches!(outcome, Outcome::Client(Refusal::Foreign)),
        "{outcome:?}"
    );
}

#[test]
fn nobody_poses_in_another_role() {
    let authority = Authority::ephemeral().unwrap();
    let agent = node(&authority, DAY);
    let outcome = dial(
        &authority,
        &agent,
        session(&authority, &agent, WRITTEN),
        WRITTEN,
    );
    let is_node = |outcome: &Outcome| {
        matches!(outcome, Outcome::Client(Refusal::WrongRole { found, .. })
            if *found == Role::Node(ID).uri())
    };
    assert!(is_node(&outcome), "{outcome:?}");
    let enrol = enrol_client(authority.fingerprint(), at(WRITTEN)).unwrap();
    let outcome = dial(&authority, &agent, enrol, WRITTEN);
    assert!(is_node(&outcome), "{outcome:?}");

    // The role counts by itself, also where the key usage would allow it.
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let params = leaf(Role::Node(ID), "gw-7", WRITTEN, DAY, usage).unwrap();
    let odd = authority.sign(&params, KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let odd = Holder::new(&odd).unwrap();
    let outcome = dial(
        &authority,
        &odd,
        session(&authority, &agent, WRITTEN),
        WRITTEN,
    );
    assert!(is_node(&outcome), "{outcome:?}");

    let server = coordinator(&authority, DAY);
    let client = session(&authority, &server, WRITTEN);
    let outcome = dial(&authority, &server, client, WRITTEN);
    let refused = matches!(&outcome, Outcome::Server(Refusal::WrongRole { found, .. })
        if found == "driftless://coordinator");
    assert!(refused, "{outcome:?}");
}

#[test]
fn an_expired_node_may_renew_within_the_grace_period_only() {
    let authority = Authority::ephemeral().unwrap();
    let server = coordinator(&authority, Span(DAY.0 * 9));
    let agent = node(&authority, DAY);
    let try_at = |now| dial(&authority, &server, session(&authority, &agent, now), now);
    let at_end = try_at(later(DAY));
    assert!(matches!(at_end, Outcome::Done(Peer::Node(_))), "{at_end:?}");
    let in_grace = try_at(later(Span(DAY.0 * 2)));
    let renews = matches!(&in_grace, Outcome::Done(Peer::Expired(Caller { id, .. })) if *id == ID);
    assert!(renews, "{in_grace:?}");
    let now = later(Span(DAY.0 * 2 + 1000));
    let after = try_at(now);
    let over = Refusal::Expired {
        since: later(DAY),
        now,
    };
    assert!(
        matches!(&after, Outcome::Server(found) if *found == over),
        "{after:?}"
    );

    // A renewed certificate is shown at the next dial, by the same holder.
    agent.replace(&renewed(&authority)).unwrap();
    assert!(matches!(try_at(now), Outcome::Done(Peer::Node(_))));
}

fn renewed(authority: &Authority) -> Credential {
    let key = NodeKey::ephemeral().unwrap();
    let issued = authority
        .node(
            &key.request().unwrap(),
            ID,
            "gw-7",
            WRITTEN,
            Span(DAY.0 * 9),
        )
        .unwrap();
    key.accept(&issued, authority.fingerprint())
        .unwrap()
        .credential
}

#[test]
fn an_expired_coordinator_is_refused_and_a_clock_that_lost_its_battery_is_not_believed() {
    let authority = Authority::ephemeral().unwrap();
    let agent = node(&authority, Span(DAY.0 * 9));
    let now = later(Span(DAY.0 * 2));
    let outcome = dial(
        &authority,
        &coordinator(&authority, DAY),
        session(&authority, &agent, now),
        now,
    );
    let over = Refusal::Expired {
        since: later(DAY),
        now,
    };
    assert!(
        matches!(&outcome, Outcome::Client(found) if *found == over),
        "{outcome:?}"
    );

    // The gateway woke in 1970; the certificate was issued days after this version was written.
    let issued = later(Span(DAY.0 * 30));
    let server_key = Holder::new(&authority.coordinator(issued, DAY).unwrap()).unwrap();
    let client = session(&authority, &agent, Unix(0));
    let config = server(&trusting(&[&authority]), &server_key, at(WRITTEN), DAY).unwrap();
    let outcome = shake(config, client, WRITTEN);
    assert!(
        matches!(outcome, Outcome::Done(Peer::Node(_))),
        "{outcome:?}"
    );
}

/// Both authorities of a fleet that changes them are good for both sides, whatever an agent's own
/// clock says; afterwards the one before is good for nothing.
#[test]
fn two_authorities_are_trusted_by_any_clock_until_one_is_given_up() {
    let (old, next) = (
        Authority::ephemeral().unwrap(),
        Authority::ephemeral().unwrap(),
    );
    let year = Span::secs(365 * 86_400);
    let now = later(Span::secs(100 * 86_400));
    let both: Vec<_> = [&next, &old].map(|one| one.certificate().clone()).into();
    let dial = |shown: &Authority, trusted: &[&Authority], client: ClientTls| {
        let shown = coordinator(shown, Span(10 * year.0));
        let server = server(&trusting(trusted), &shown, at(now), year).unwrap();
        shake(server, client, now)
    };
    // a battery that is empty, a right clock, one that is far ahead
    for wall in [Unix(0), now, Unix(i64::MAX / 2)] {
        let believed = believable(wall, WRITTEN);
        let client =
            |own: &Authority, life| session_client(&both, &node(own, life), at(believed)).unwrap();
        for own in [&old, &next] {
            let outcome = dial(&old, &[&old, &next], client(own, year));
            assert!(
                matches!(outcome, Outcome::Done(Peer::Node(_))),
                "{outcome:?}"
            );
            // it expired while its node was away, and may be renewed
            let outcome = dial(&old, &[&old, &next], client(own, DAY));
            assert!(
                matches!(outcome, Outcome::Done(Peer::Expired(_))),
                "{outcome:?}"
            );
        }
        let outcome = dial(&next, &[&next], client(&next, year));
        assert!(
            matches!(outcome, Outcome::Done(Peer::Node(_))),
            "{outcome:?}"
        );
        let outcome = dial(&next, &[&next], client(&old, year));
        assert!(
            matches!(outcome, Outcome::Server(Refusal::Foreign)),
            "{outcome:?}"
        );
        let trusts_old = [old.certificate().clone()];
        let away = session_client(&trusts_old, &node(&old, year), at(believed)).unwrap();
        let outcome = dial(&next, &[&next], away);
        assert!(
            matches!(outcome, Outcome::Client(Refusal::Foreign)),
            "{outcome:?}"
        );
    }
}
