//! One session of an agent, from the dial to its end: which address answers, what is said and
//! heard.

use crate::enrolling::enrolled;
use crate::linking::{LinkOptions, Sockets, not_linked, resolve, tell, text};
use crate::log_wishes::serve_logs;
use crate::mailbox::Handle;
use crate::renewing::Renewing;
use certs::Holder;
use edge_core::event::Event;
use link::frame::FrameError;
use link::session::{AgentTx, InventoryTx, TelemetryTx};
use link::{Close, Connection, LinkError};
use shared::inventory::InventoryPart;
use shared::telemetry::Report;
use shared::time::Span;
use shared::wire::{self, Down, Up};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Within so much time agents that see the new authority at work stop trusting the one before: all
/// may see it at once.
const DROP_OTHERS: Span = Span::secs(5);

/// One session from dial to end.
pub(crate) struct Talk {
    pub(crate) number: u64,
    pub(crate) options: Arc<LinkOptions>,
    pub(crate) handle: Handle,
    pub(crate) connection: Arc<tokio::sync::OnceCell<Connection>>,
    pub(crate) sockets: Sockets,
    pub(crate) turn: Arc<AtomicUsize>,
    pub(crate) renewing: Renewing,
    pub(crate) from: Receiver<Up>,
}

impl Talk {
    /// Dials, talks, and returns why it ended; the loop has been told.
    pub(crate) async fn run(mut self) -> String {
        let why = match self.connect().await {
            Ok(connection) => self.talk(connection).await,
            Err(why) => why,
        };
        self.options.telemetry.unlinked(self.number);
        tell(
            &self.handle,
            Event::Unlinked {
                session: self.number,
                why: why.clone(),
            },
        );
        why
    }

    /// Tries the coordinator's addresses in turn, beginning with the one that answered last.
    async fn connect(&self) -> Result<Connection, String> {
        let coordinators = &self.options.coordinators;
        let mut failures = Vec::new();
        for _ in coordinators {
            let turn = self.turn.load(Ordering::Relaxed) % coordinators.len();
            let coordinator = &coordinators[turn];
            match self.connect_to(coordinator).await {
                Ok(connection) => return Ok(connection),
                Err(why) => failures.push(format!("{coordinator}: {why}")),
            }
            self.next_turn();
        }
        match failures.is_empty() {
            true => Err("no coordinator is set".to_owned()),
            false => Err(failures.join("; ")),
        }
    }

    fn next_turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect_to(&self, coordinator: &str) -> Result<Connection, String> {
        let mut last = String::new();
        for address in resolve(coordinator).await? {
            match self.connect_at(address).await {
                Ok(connection) => return Ok(connection),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn connect_at(&self, address: SocketAddr) -> Result<Connection, String> {
        let endpoint = self.sockets.of(address, &self.options)?;
        if self.renewing.only_renewable()
            && let Some(turn) = self.renewing.begin()
        {
            let renewed = turn.renew(Ok(vec![(endpoint.clone(), address)])).await;
            // Where only this side takes it for expired its clock may be wrong.
            if let (Err(why), true) = (renewed, self.renewing.said_expired()) {
                return Err(format!(
                    "the certificate has expired and is not renewed: {why}"
                ));
            }
        }
        let enrolled = enrolled(&self.options.pki)?;
        let holder = Holder::new(&enrolled.credential).map_err(|error| text(&error))?;
        let tls = certs::session_client(&enrolled.authorities, &holder, self.renewing.clock())
            .map_err(|error| text(&error))?;
        let connection = endpoint.dial(address, tls).await;
        let connection = connection.map_err(|error| not_linked(&error))?;
        if let [own, _, ..] = &enrolled.authorities[..]
            && connection.peer_is_of(own)
        {
            // The coordinator is of the new authority: the one before is trusted no longer than
            // until the next renewal.
            self.renewing.ask(DROP_OTHERS);
        }
        Ok(connection)
    }

    async fn talk(&mut self, connection: Connection) -> String {
        let (mut tx, mut rx) = match connection.open_session().await {
            Ok(ends) => ends,
            Err(error) => return text(&error),
        };
        // Set once: this session makes one connection.
        let _ = self.connection.set(connection.clone());
        tell(
            &self.handle,
            Event::Linked {
                session: self.number,
            },
        );
        let (parts, of_inventory) = unbounded_channel();
        let send = send_all(&mut tx, &mut self.from, parts);
        let (pieces, to_send) = unbounded_channel();
        let mut pieces = Some(pieces);
        let (handle, session) = (self.handle.clone(), self.number);
        let (turn, renewing) = (&self.turn, self.renewing.clone());
        let mut welcome = false;
        let receive = async {
            loop {
                match rx.recv().await {
                    Ok(Down::Telemetry(receipt)) => {
                        self.options.telemetry.received(session, receipt);
                    }
                    Ok(Down::Renew { within }) => renewing.ask(within),
                    Ok(message) => {
                        if let Down::Welcome(told) = &message {
                            let takes = told.features & wire::TELEMETRY != 0;
                            if let Some(pieces) = pieces.take().filter(|_| takes) {
                                self.options.telemetry.linked(session, pieces);
                            }
                            welcome = true;
                            renewing.hear(told.now);
                            rx.accepted();
                            tracing::info!(session, "the link is up");
                        }
                        log_refusal(session, &message);
                        tell(&handle, Event::Heard { session, message });
                    }
                    Err(error) => {
                        // one that answers and does not let us in shall not keep us from the others
                        if !welcome {
                            turn.fetch_add(1, Ordering::Relaxed);
                        }
                        if let LinkError::Closed { close, .. } = &error
                            && *close == Close::Expired
                        {
                            renewing.is_expired();
                        }
                        return text(&error);
                    }
                }
            }
        };
        let logs = serve_logs(connection.clone(), self.options.data.clone());
        // whichever ends first ends the session: first what was heard is told, so that last words
        // are not lost when nothing can be sent any more
        let why = tokio::select! {
            biased;
            why = receive => why,
            why = send => why,
            why = send_telemetry(connection.telemetry(), to_send) => why,
            why = send_parts(connection.inventory(), of_inventory, (&self.handle, session)) => why,
            why = logs => why,
        };
        connection.close(Close::Done, "the session has ended");
        why
    }
}

/// Sends what the loop says until the session ends; returns why it did. Parts of an inventory go
/// to `parts`: they have a stream of their own, so that nothing waits behind them.
async fn send_all(
    tx: &mut AgentTx,
    from: &mut Receiver<Up>,
    parts: UnboundedSender<InventoryPart>,
) -> String {
    while let Some(message) = from.recv().await {
        let message = match message {
            Up::InventoryPart(part) => {
                let _ = parts.send(part); // the session is ending
                continue;
            }
            message => message,
        };
        match tx.send(&message).await {
            Ok(()) => {}
            // It would be too large in the next session, too: all else goes on.
            Err(error @ LinkError::Frame(FrameError::TooLarge { .. }))
                if matches!(message, Up::Inventory(_)) =>
            {
                let why = text(&error);
                tracing::error!(%why, "the inventory for the coordinator is left out");
            }
            Err(error) => return text(&error),
        }
    }
    "hung up".to_owned()
}

fn log_refusal(session: u64, message: &Down) {
    if let Down::Refuse(refuse) = message {
        let why = &refuse.text;
        tracing::warn!(session, why, "the coordinator refuses this agent");
    }
}

/// Sends pieces of telemetry until the connection ends; returns why it did.
async fn send_telemetry(mut tx: TelemetryTx, mut pieces: UnboundedReceiver<Report>) -> String {
    while let Some(report) = pieces.recv().await {
        if let Err(error) = tx.send(report).await {
            return text(&error);
        }
    }
    // Nothing is measured any more; the session goes on.
    pending().await
}

/// Sends the parts of an inventory until the connection ends; returns why it did. The loop makes
/// one when the link has taken the one before.
async fn send_parts(
    mut tx: InventoryTx,
    mut parts: UnboundedReceiver<InventoryPart>,
    (handle, session): (&Handle, u64),
) -> String {
    while let Some(part) = parts.recv().await {
        if let Err(error) = tx.send(part).await {
            return text(&error);
        }
        tell(handle, Event::PartTaken { session });
    }
    // Whoever gives them has ended, and says why.
    pending().await
}
