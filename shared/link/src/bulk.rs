//! Files over the link: one bidirectional stream each, opened by the side that wants to get or to
//! give. The content follows the answer as it is, from the position that the receiver names, and is
//! verified by the receiver before it counts.

use crate::endpoint::Connection;
use crate::error::LinkError;
use crate::frame::{self, FrameReader, Kind};
use contents::{Begin, Dir, FilesError, Reader, Writer};
use quinn::{RecvStream, SendStream, VarInt};
use serde::{Deserialize, Serialize};
use shared::ids::Hash;
use shared::limits::HELLO_BYTES;

/// Transfers that one side opens on one connection at once; more wait their turn.
pub const PARALLEL: usize = 4;
const BLOCK: usize = 256 * 1024;
/// Given to the sender of content that is not wanted any more.
const UNWANTED: VarInt = VarInt::from_u32(1);

/// What is wanted of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Wish {
    /// 0: send it, from this position on.
    Get {
        /// Its content.
        hash: Hash,
        /// First byte wanted.
        from: u64,
    },
    /// 1: take it.
    Put {
        /// Its content.
        hash: Hash,
        /// Its bytes.
        size: u64,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Answer {
    /// 0: the content follows, of a file of this size in all.
    Follows { size: u64 },
    /// 1: so many bytes are here; send the others.
    Here { bytes: u64 },
    /// 2: it is stored, verified, durable.
    Stored,
    /// 3: no.
    Refused(FileRefusal),
}

/// Why a file is not sent or not taken. Variants are numbered by position and may only be appended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum FileRefusal {
    /// 0: it is not there.
    #[error("the peer does not have it")]
    Missing,
    /// 1: it is not this node's to read or to write.
    #[error("the peer does not allow it")]
    NotAllowed,
    /// 2: the peer's budget is used up.
    #[error("the peer has no room for it: {used} of {budget} bytes are in use")]
    NoRoom {
        /// Bytes in use there.
        used: u64,
        /// Bytes allowed there.
        budget: u64,
    },
    /// 3: another transfer of the same content is under way there.
    #[error("the peer is storing it already: ask again later")]
    Busy,
    /// 4: what arrived there was not what its name says.
    #[error("its content arrived damaged: it is not what its hash says")]
    Corrupt,
    /// 5: anything else, in words.
    #[error("the peer failed: {0}")]
    Failed(String),
}

impl From<&FilesError> for FileRefusal {
    fn from(error: &FilesError) -> Self {
        match error {
            FilesError::Missing(_) => Self::Missing,
            FilesError::NoRoom { used, budget, .. } => Self::NoRoom {
                used: *used,
                budget: *budget,
            },
            FilesError::Busy(_) => Self::Busy,
            FilesError::Corrupt { .. } => Self::Corrupt,
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Why a file was not transferred. What arrived is kept, and the next try goes on behind it.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The link.
    #[error("the link failed during a transfer")]
    Link(#[from] LinkError),
    /// The file store of this side.
    #[error("the file store failed during a transfer")]
    Files(#[from] FilesError),
    /// The peer said no.
    #[error("the transfer of {hash} was refused")]
    Refused {
        /// The file.
        hash: Hash,
        /// Why.
        #[source]
        refusal: FileRefusal,
    },
    /// The peer's answer does not fit the wish, or the sizes differ.
    #[error("the peer's answer about {hash} makes no sense: {text}")]
    Odd {
        /// The file.
        hash: Hash,
        /// What is odd.
        text: String,
    },
    /// The thread pool of this side is gone.
    #[error("this side is stopping")]
    Stopping,
}

/// What a transfer came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// Bytes that were there before.
    pub resumed_from: u64,
    /// Bytes that travelled now.
    pub sent: u64,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, BulkError> {
    Ok(tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| BulkError::Stopping)??)
}

/// Fetches the file of `size` bytes into `dir`, behind what is there of it.
///
/// # Errors
/// [`BulkError`].
pub async fn get(
    connection: &Connection,
    hash: Hash,
    size: u64,
    dir: &Dir,
) -> Result<Done, BulkError> {
    let _turn = connection
        .transfers
        .acquire()
        .await
        .map_err(|_| BulkError::Stopping)?;
    let store = dir.clone();
    let Begin::From(writer) = blocking(move || store.begin_write(hash, size)).await? else {
        return Ok(Done {
            resumed_from: size,
            sent: 0,
        });
    };
    let from = writer.offset();
    let (send, receive) = connection.quic.open_bi().await.map_err(LinkError::from)?;
    let mut stream = Both {
        send,
        receive: FrameReader::new(receive),
    };
    stream.say(Kind::FileAsk, &Wish::Get { hash, from }).await?;
    stream.end();
    match stream.hear::<Answer>(Kind::FileAnswer).await? {
        Answer::Follows { size: theirs } if theirs == size => {}
        Answer::Refused(refusal) => return Err(BulkError::Refused { hash, refusal }),
        other => {
            return Err(BulkError::Odd {
                hash,
                text: format!("{other:?}"),
            });
        }
    }
    let mut receive = stream.receive.into_stream();
    let taken = take(&mut receive, writer).await;
    if taken.is_err() {
        let _ = receive.stop(UNWANTED); // fails only when it ended anyway
    }
    taken?;
    Ok(Done {
        resumed_from: from,
        sent: size - from,
    })
}

/// Gives the file in `dir` to the peer, as far as it does not have it. Returns when it is durable
/// there.
///
/// # Errors
/// [`BulkError`].
pub async fn put(connection: &Connection, hash: Hash, dir: &Dir) -> Result<Done, BulkError> {
    let _turn = connection
        .transfers
        .acquire()
        .await
        .map_err(|_| BulkError::Stopping)?;
    let store = dir.clone();
    let size = blocking(move || store.open_read(hash, 0)).await?.size();
    let (send, receive) = connection.quic.open_bi().await.map_err(LinkError::from)?;
    let mut stream = Both {
        send,
        receive: FrameReader::new(receive),
    };
    stream.say(Kind::FileAsk, &Wish::Put { hash, size }).await?;
    let bytes = match stream.hear::<Answer>(Kind::FileAnswer).await? {
        Answer::Stored => {
            return Ok(Done {
                resumed_from: size,
                sent: 0,
            });
        }
        Answer::Here { bytes } => bytes,
        Answer::Refused(refusal) => return Err(BulkError::Refused { hash, refusal }),
        other => {
            return Err(BulkError::Odd {
                hash,
                text: format!("{other:?}"),
            });
        }
    };
    let store = dir.clone();
    let reader = blocking(move || store.open_read(hash, bytes)).await?;
    // A refusal in the middle stops the stream: the answer says why.
    let given = give(&mut stream.send, reader).await;
    stream.end();
    match (stream.hear::<Answer>(Kind::FileAnswer).await, given) {
        (Ok(Answer::Stored), Ok(())) => Ok(Done {
            resumed_from: bytes,
            sent: size - bytes,
        }),
        (Ok(Answer::Refused(refusal)), _) => Err(BulkError::Refused { hash, refusal }),
        (_, Err(error)) => Err(error),
        (Ok(other), _) => Err(BulkError::Odd {
            hash,
            text: format!("{other:?}"),
        }),
        (Err(error), _) => Err(error.into()),
    }
}

/// Both directions of a stream.
#[derive(Debug)]
struct Both {
    send: SendStream,
    receive: FrameReader,
}

impl Both {
    async fn say<T: Serialize>(&mut self, kind: Kind, message: &T) -> Result<(), LinkError> {
        let frame = frame::encode(kind, message)?;
        Ok(self.send.write_all(&frame).await?)
    }

    async fn hear<T: serde::de::DeserializeOwned>(&mut self, kind: Kind) -> Result<T, LinkError> {
        self.receive
            .next(kind, HELLO_BYTES)
            .await?
            .ok_or(LinkError::Ended)
    }

    fn end(&mut self) {
        let _ = self.send.finish(); // fails only on a stream that was closed before
    }
}

/// Sends the rest of a file.
async fn give(send: &mut SendStream, mut reader: Reader) -> Result<(), BulkError> {
    let mut block = vec![0; BLOCK];
    loop {
        let (back, filled, n);
        (back, filled, n) = blocking(move || {
            let n = reader.read(&mut block)?;
            Ok((reader, block, n))
        })
        .await?;
        (reader, block) = (back, filled);
        if n == 0 {
            return Ok(());
        }
        send.write_all(&block[..n]).await.map_err(LinkError::from)?;
    }
}

/// Stores the rest of a file. What arrived before an error is stored, too.
async fn take(receive: &mut RecvStream, mut writer: Box<Writer>) -> Result<(), BulkError> {
    let mut block = vec![0; BLOCK];
    loop {
        let (filled, end) = fill(receive, &mut block).await;
        if filled > 0 {
            (writer, block) = blocking(move || {
                writer.append(&block[..filled])?;
                Ok((writer, block))
            })
            .await?;
        }
        match end {
            None => {}
            Some(Ok(())) => return blocking(move || writer.finish()).await,
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

/// Reads until `block` is full or the stream has ended, well or not; the number of bytes read.
async fn fill(stream: &mut RecvStream, block: &mut [u8]) -> (usize, Option<Result<(), LinkError>>) {
    let mut filled = 0;
    while filled < block.len() {
        match stream.read(&mut block[filled..]).await {
            Ok(Some(n)) => filled += n,
            Ok(None) => return (filled, Some(Ok(()))),
            Err(error) => return (filled, Some(Err(error.into()))),
        }
    }
    (filled, None)
}

impl Connection {
    /// The next stream of the peer that is about a file. To be read and answered in a task of its
    /// own: a slow one must not delay the others. On a connection with a session the session comes
    /// first.
    ///
    /// # Errors
    /// The loss of the connection.
    pub async fn accept_file(&self) -> Result<FileStream, LinkError> {
        let (send, receive) = self.quic.accept_bi().await?;
        Ok(FileStream(Both {
            send,
            receive: FrameReader::new(receive),
        }))
    }
}

/// A stream of the peer whose wish was not read yet.
#[derive(Debug)]
pub struct FileStream(Both);

impl FileStream {
    /// What the peer wants.
    ///
    /// # Errors
    /// [`LinkError::Frame`] for a wish that cannot be understood, or the loss of the connection.
    pub async fn wish(mut self) -> Result<FileAsk, LinkError> {
        let wish = self.0.hear(Kind::FileAsk).await?;
        Ok(FileAsk {
            wish,
            stream: self.0,
        })
    }
}

/// A wish of the peer. Whoever accepts it decides whether it is granted.
#[derive(Debug)]
pub struct FileAsk {
    wish: Wish,
    stream: Both,
}

impl FileAsk {
    /// What is wanted.
    #[must_use]
    pub fn wish(&self) -> Wish {
        self.wish
    }

    /// Says no.
    ///
    /// # Errors
    /// The loss of the connection.
    pub async fn refuse(mut self, refusal: FileRefusal) -> Result<(), LinkError> {
        self.stream
            .say(Kind::FileAnswer, &Answer::Refused(refusal))
            .await?;
        self.stream.end();
        Ok(())
    }

    /// Grants it from or into `dir`. For a put it returns when the file is durable here.
    ///
    /// # Errors
    /// [`BulkError`]; the peer was told, if the link lives.
    pub async fn grant(self, dir: &Dir) -> Result<Done, BulkError> {
        match self.wish {
            Wish::Get { hash, from } => self.send_file(hash, from, dir.clone()).await,
            Wish::Put { hash, size } => self.take_file(hash, size, dir.clone()).await,
        }
    }

    async fn send_file(mut self, hash: Hash, from: u64, dir: Dir) -> Result<Done, BulkError> {
        let reader = match blocking(move || dir.open_read(hash, from)).await {
            Ok(reader) => reader,
            Err(error) => return Err(self.tell(error).await),
        };
        let size = reader.size();
        self.stream
            .say(Kind::FileAnswer, &Answer::Follows { size })
            .await?;
        give(&mut self.stream.send, reader).await?;
        self.stream.end();
        Ok(Done {
            resumed_from: from,
            sent: size - from,
        })
    }

    async fn take_file(mut self, hash: Hash, size: u64, dir: Dir) -> Result<Done, BulkError> {
        let writer = match blocking(move || dir.begin_write(hash, size)).await {
            Ok(Begin::From(writer)) => writer,
            Ok(Begin::Complete) => {
                self.stream.say(Kind::FileAnswer, &Answer::Stored).await?;
                self.stream.end();
                return Ok(Done {
                    resumed_from: size,
                    sent: 0,
                });
            }
            Err(error) => return Err(self.tell(error).await),
        };
        let bytes = writer.offset();
        self.stream
            .say(Kind::FileAnswer, &Answer::Here { bytes })
            .await?;
        let Both { send, receive } = self.stream;
        let mut receive = receive.into_stream();
        let taken = take(&mut receive, writer).await;
        let mut stream = Both {
            send,
            receive: FrameReader::new(receive),
        };
        if let Err(error) = taken {
            return Err(Self {
                wish: self.wish,
                stream,
            }
            .tell(error)
            .await);
        }
        stream.say(Kind::FileAnswer, &Answer::Stored).await?;
        stream.end();
        Ok(Done {
            resumed_from: bytes,
            sent: size - bytes,
        })
    }

    /// Tells the peer why this side failed.
    async fn tell(mut self, error: BulkError) -> BulkError {
        if let BulkError::Files(files) = &error {
            let refusal = FileRefusal::from(files);
            let told = self
                .stream
                .say(Kind::FileAnswer, &Answer::Refused(refusal))
                .await;
            if told.is_ok() {
                self.stream.end();
            }
            let mut receive = self.stream.receive.into_stream();
            let _ = receive.stop(UNWANTED); // fails only when it ended anyway
        }
        error
    }
}
