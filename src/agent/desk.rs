//! Where people on this machine ask a running agent: a Unix socket in its state directory, one word a connection, one
//! line of JSON back. For root, and for the user and group that the agent runs as.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::status::Status;
use super::updater::Report;
use crate::base::limits::{AGENT_ANSWER_BYTES, AGENT_QUESTIONS};

const SOCKET: &str = "agent.sock";

/// Who connects and says nothing is not waited for.
const WORD_WITHIN: Duration = Duration::from_secs(5);

/// What an agent is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// How it is.
    Status,
    /// Verify the list and check in now.
    CheckIn,
    /// Bring the directories up to date now.
    Update,
}

impl Order {
    const ALL: [Self; 3] = [Self::Status, Self::CheckIn, Self::Update];

    const fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::CheckIn => "checkin",
            Self::Update => "update",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// How the agent is now.
    pub status: Status,
    /// What did not work.
    pub error: Option<String>,
    /// How the updates went.
    pub reports: Vec<Report>,
}

/// An order, and where the answer goes.
pub(super) type Asked = (Order, oneshot::Sender<Done>);

/// The socket, which goes with it.
#[derive(Debug)]
pub(super) struct Desk {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Desk {
    /// Opens it. One of an agent that was killed is replaced: the lock says that it is gone.
    pub(super) fn open(state_dir: &Path) -> io::Result<(Self, mpsc::Receiver<Asked>)> {
        let path = state_dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
        let (ask, asked) = mpsc::channel(AGENT_QUESTIONS);
        let task = tokio::spawn(async move {
            // One after the other: people ask, not programs by the thousand.
            while let Ok((socket, _)) = listener.accept().await {
                let ask = ask.clone();
                tokio::spawn(async move { drop(serve(socket, ask).await) });
            }
        });
        Ok((Self { path, task }, asked))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.task.abort();
        drop(std::fs::remove_file(&self.path));
    }
}

async fn serve(socket: UnixStream, ask: mpsc::Sender<Asked>) -> io::Result<()> {
    let (read, mut write) = socket.into_split();
    let mut word = String::new();
    timeout(WORD_WITHIN, BufReader::new(read.take(64)).read_line(&mut word)).await??;
    let Some(order) = Order::ALL.into_iter().find(|order| order.word() == word.trim()) else { return Ok(()) };
    let (tell, told) = oneshot::channel();
    // Too many questions at once, or an agent that ends: the connection closes without an answer.
    if ask.try_send((order, tell)).is_ok()
        && let Ok(done) = told.await
    {
        write.write_all(&serde_json::to_vec(&done).map_err(io::Error::other)?).await?;
    }
    Ok(())
}

/// Asks the agent that runs with this state directory; `None`: none does.
///
/// # Errors
/// It did not answer.
pub async fn ask(state_dir: &Path, order: Order) -> io::Result<Option<Done>> {
    let mut socket = match UnixStream::connect(state_dir.join(SOCKET)).await {
        Ok(socket) => socket,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    socket.write_all(format!("{}\n", order.word()).as_bytes()).await?;
    let mut answer = Vec::new();
    let most = u64::try_from(4 * AGENT_ANSWER_BYTES).unwrap_or(u64::MAX);
    socket.take(most).read_to_end(&mut answer).await?;
    serde_json::from_slice(&answer).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_gets_one_answer_and_a_desk_that_is_gone_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ask(dir.path(), Order::Status).await.unwrap().is_none());
        let (desk, mut asked) = Desk::open(dir.path()).unwrap();
        let (answer, ()) = tokio::join!(ask(dir.path(), Order::CheckIn), async {
            let (order, tell) = asked.recv().await.unwrap();
            assert_eq!(order, Order::CheckIn);
            tell.send(Done { error: Some("no".to_owned()), ..Done::default() }).unwrap();
        });
        assert_eq!(answer.unwrap().unwrap().error.as_deref(), Some("no"));
        let path = desk.path.clone();
        drop(desk);
        assert!(!path.exists());
        std::fs::write(path, "").unwrap();
        assert!(ask(dir.path(), Order::Status).await.is_ok_and(|answer| answer.is_none()));
    }
}
