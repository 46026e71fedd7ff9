//! A relay of TCP connections in front of a node: an address that stays while what is behind it is killed and comes
//! back on another port, and a line that can stop carrying without anybody being told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Bytes taken from a connection at once.
const CHUNK: usize = 16 << 10;

/// What gets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carries {
    /// Everything.
    #[default]
    All,
    /// Questions; what the node answers is held back.
    Questions,
    /// Nothing: connections are made, and bytes in both directions wait.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    to: SocketAddr,
    carries: Carries,
    /// Connections that began under another number have ended.
    number: u64,
}

/// A relay. Dropping it cuts everything.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    line: Arc<watch::Sender<Line>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// On a port of loopback that the kernel chooses, leading to `to`.
    pub async fn open(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let line = Arc::new(watch::Sender::new(Line { to, carries: Carries::All, number: 0 }));
        let task = tokio::spawn(run(listener, Arc::clone(&line)));
        Self { address, line, task }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where new connections lead from now on.
    pub fn lead_to(&self, to: SocketAddr) {
        self.line.send_modify(|line| line.to = to);
    }

    /// What gets through from now on. What waited goes on when it may.
    pub fn carry(&self, carries: Carries) {
        self.line.send_modify(|line| line.carries = carries);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.line.send_modify(|line| line.number += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: TcpListener, line: Arc<watch::Sender<Line>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((near, _)) = accepted {
                connections.spawn(carry(near, line.subscribe()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut near: TcpStream, mut line: watch::Receiver<Line>) {
    let began = line.borrow().number;
    let (for_questions, for_answers) = (line.clone(), line.clone());
    // A node that is not there refuses; here the connection breaks, which comes to the same.
    let carried = async {
        let to = for_questions.borrow().to;
        let mut far = TcpStream::connect(to).await?;
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let up = pump(near_read, far_write, for_questions, |carries| carries != Carries::Nothing);
        let down = pump(far_read, near_write, for_answers, |carries| carries == Carries::All);
        tokio::try_join!(up, down).map(|_| ())
    };
    let ended = tokio::select! {
        ended = carried => ended,
        _ = line.wait_for(|line| line.number != began) => Err(std::io::ErrorKind::ConnectionReset.into()),
    };
    if ended.is_err() {
        let _ = near.set_zero_linger();
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut line: watch::Receiver<Line>,
    may: impl Fn(Carries) -> bool,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        // The relay itself is gone: so is the connection.
        line.wait_for(|line| may(line.carries)).await.map_err(std::io::Error::other)?;
        match chunk.get(..read) {
            Some(bytes) if !bytes.is_empty() => to.write_all(bytes).await?,
            _ => return to.shutdown().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn what_waits_goes_on_when_it_may_and_a_cut_ends_everything() {
        let relay = Relay::open(echo().await).await;
        let mut client = TcpStream::connect(relay.address()).await.unwrap();
        let mut byte = [0];
        client.write_all(b"a").await.unwrap();
        client.read_exact(&mut byte).await.unwrap();
        for carries in [Carries::Nothing, Carries::Questions] {
            relay.carry(carries);
            client.write_all(b"b").await.unwrap();
            // That nothing comes is seen by what comes first afterwards: this connection is made meanwhile.
            let mut other = TcpStream::connect(relay.address()).await.unwrap();
            relay.carry(Carries::All);
            other.write_all(b"c").await.unwrap();
            other.read_exact(&mut byte).await.unwrap();
            assert_eq!(&byte, b"c");
            client.read_exact(&mut byte).await.unwrap();
            assert_eq!(&byte, b"b");
        }
        relay.cut();
        assert!(client.read_exact(&mut byte).await.is_err());
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        relay.lead_to(nobody);
        let mut client = TcpStream::connect(relay.address()).await.unwrap();
        assert!(client.read_exact(&mut byte).await.is_err());
    }
}
