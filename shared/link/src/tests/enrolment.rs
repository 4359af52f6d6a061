//! Enrolment over a real connection: tokens, names, refusals.

use super::*;
use crate::enrol::{EnrolAsk, EnrolRefusal, EnrolReply, EnrolRequest};
use certs::{Admission, Presented, Refusal, Token, TokenRecord, TokenRefusal, enrol_client};

fn ask(presented: &Presented, key: &NodeKey) -> EnrolAsk {
    EnrolAsk::Enrol(EnrolRequest {
        version: "test".into(),
        token: presented.clone(),
        name: "gw-7".into(),
        request: key.request().unwrap(),
        labels: BTreeMap::new(),
    })
}

fn record_key(key: &NodeKey) -> [u8; 32] {
    Authority::request_key(&key.request().unwrap()).unwrap()
}

/// What a coordinator does with an enrolment, in short.
fn decide(fleet: &Fleet, record: &TokenRecord, ask: EnrolAsk) -> EnrolReply {
    let EnrolAsk::Enrol(ask) = ask else {
        panic!("nobody renews here")
    };
    let key = Authority::request_key(&ask.request).unwrap();
    match record.admit(&ask.token, &ask.name, &key, WRITTEN) {
        Ok(Admission::New) => {
            let issued = fleet
                .authority
                .node(&ask.request, ID, &ask.name, WRITTEN, DAY)
                .unwrap();
            EnrolReply::Enrolled {
                node: ID,
                issued,
                now: WRITTEN,
            }
        }
        Ok(Admission::Again(_)) => panic!("nobody enrolled before"),
        Err(refusal) => EnrolReply::Refused(EnrolRefusal::Token(refusal)),
    }
}

async fn enrol(fleet: &Fleet, record: &TokenRecord, token: &Token, key: &NodeKey) -> EnrolReply {
    let client = fleet.client(&Settings::agent());
    let tls = enrol_client(token.authority, clock()).unwrap();
    let serving = async {
        let (peer, theirs) = fleet.accept().await.unwrap();
        assert_eq!(peer, Peer::Anonymous);
        let (ask, answer) = theirs.accept_enrol().await.unwrap();
        answer.answer(&decide(fleet, record, ask)).await.unwrap();
    };
    let asking = async {
        let agent = client.dial(fleet.address, tls).await.unwrap();
        agent.enrol(&ask(&token.presented, key)).await.unwrap()
    };
    tokio::join!(serving, asking).1
}

#[tokio::test]
async fn a_newcomer_becomes_a_node_with_its_token_only() {
    let fleet = Fleet::new();
    let later = Unix(WRITTEN.0 + 1000);
    let (token, record) = Token::create(fleet.authority.fingerprint(), later, None, false);
    let key = NodeKey::ephemeral().unwrap();
    let mut guess = token.clone();
    guess.presented.secret = [0; 16];
    let refused = enrol(&fleet, &record, &guess, &key).await;
    assert_eq!(
        refused,
        EnrolReply::Refused(EnrolRefusal::Token(TokenRefusal::Wrong))
    );

    let EnrolReply::Enrolled { node, issued, .. } = enrol(&fleet, &record, &token, &key).await
    else {
        panic!("the token is good")
    };
    let enrolled = key.accept(&issued, token.authority).unwrap();
    assert_eq!((node, enrolled.id), (ID, ID));
    let shown = Holder::new(&enrolled.credential).unwrap();
    let tls = session_client(&enrolled.authorities, &shown, clock()).unwrap();
    let client = fleet.client(&Settings::agent());
    let (dialled, accepted) = tokio::join!(client.dial(fleet.address, tls), fleet.accept());
    dialled.unwrap();
    assert_eq!(
        accepted.unwrap().0,
        Peer::Node(certs::Caller {
            id: ID,
            name: "gw-7".into(),
            key: record_key(&key),
            until: Unix(WRITTEN.0 + DAY.0 as i64),
            certificate: issued.certificate.clone().into(),
        })
    );
}

#[tokio::test]
async fn a_token_of_another_fleet_is_never_shown_to_this_one() {
    let fleet = Fleet::new();
    let other = Authority::ephemeral().unwrap();
    let client = fleet.client(&Settings::agent());
    let tls = enrol_client(other.fingerprint(), clock()).unwrap();
    let (dialled, accepted) = tokio::join!(client.dial(fleet.address, tls), fleet.accept());
    let wanted = other.fingerprint();
    assert!(matches!(
        dialled.unwrap_err(),
        LinkError::Untrusted(found) if found == Refusal::WrongFingerprint { wanted }
    ));
    let told = accepted.unwrap_err().to_string();
    assert!(
        told.contains("fingerprint"),
        "the coordinator can say why: {told}"
    );
}

#[tokio::test]
async fn a_foreign_certificate_is_refused_and_both_sides_say_so() {
    let fleet = Fleet::new();
    let foreign = Authority::ephemeral().unwrap();
    let client = fleet.client(&Settings::agent());
    let dialling = async {
        let agent = client
            .dial(fleet.address, fleet.node(&foreign))
            .await
            .unwrap();
        let (mut tx, mut rx) = agent.open_session().await.unwrap();
        let _ = tx.send(&hello()).await; // the refusal may be here already
        rx.recv().await.unwrap_err()
    };
    let (here, there) = tokio::join!(dialling, fleet.accept());
    let told = there.unwrap_err().to_string();
    assert!(
        told.starts_with("the handshake failed: the certificate is foreign"),
        "{told}"
    );
    assert!(
        matches!(&here, LinkError::RefusedByPeer(text) if text.contains("foreign")),
        "{here}"
    );
}

#[tokio::test]
async fn nobody_answers_is_an_error_of_its_own() {
    let fleet = Fleet::new();
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let settings = Settings {
        idle: Span(300),
        ..Settings::agent()
    };
    let client = fleet.client(&settings);
    let dialled = client
        .dial(silent.local_addr().unwrap(), fleet.node(&fleet.authority))
        .await;
    assert!(matches!(dialled, Err(LinkError::TimedOut)), "{dialled:?}");
}
