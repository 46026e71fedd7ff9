//! The Unix socket of the admin API.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Admin;
use super::serve::{CONNECTIONS, Entrance, serve};

/// After an accept that failed for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another process answers on it.
    #[error("another process listens on {0}")]
    InUse(PathBuf),
    /// The path is taken by something that is no socket; it is left alone.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The file system refuses.
    #[error("cannot make the admin socket {path}")]
    Io {
        /// The path as configured.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
}

/// The listening socket. Dropping it removes its file.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Listens on `path`: its directory is made if missing, a socket nobody answers on is replaced, and only the
    /// node's user may connect; or everybody, where `open`: then it is for [`super::Access`] to say who is answered.
    /// Inside a tokio runtime.
    ///
    /// # Errors
    /// As [`AdminError`] says.
    pub fn bind(path: &Path, open: bool) -> Result<Self, AdminError> {
        use std::os::unix::fs::FileTypeExt as _;
        let wrap = |error| AdminError::Io { path: path.to_owned(), error };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(AdminError::NotASocket(path.to_owned()));
            }
            Ok(_) if StdUnixStream::connect(path).is_ok() => return Err(AdminError::InUse(path.to_owned())),
            _ => {}
        }
        let listener = bind_aside(path, if open { 0o666 } else { 0o600 }).map_err(wrap)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until dropped.
    pub async fn serve(self, admin: Admin) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // Owns the connections: they end with this future.
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    accepted = self.listener.accept() => break accepted,
                }
            };
            match stream {
                Ok((stream, _)) => {
                    // Somebody who has left already needs no answer.
                    let Ok(peer) = stream.peer_cred() else { continue };
                    let entrance = Entrance::Socket { uid: peer.uid(), gid: peer.gid() };
                    let admin = admin.clone();
                    connections.spawn(async move {
                        serve(admin, stream, entrance).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin socket");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Bound beside its place and moved there when its mode is right: at no moment can somebody else connect.
fn bind_aside(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let aside = directory.join(format!(".waypost-{}", std::process::id()));
    let _ = std::fs::remove_file(&aside);
    let listener = UnixListener::bind(&aside)?;
    let placed = std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(mode))
        .and_then(|()| std::fs::rename(&aside, path));
    if placed.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    placed.map(|()| listener)
}

#[cfg(test)]
mod tests {
    use super::super::tests::quiet;
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn only_the_owner_may_connect_and_an_old_socket_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = AdminSocket::bind(&path, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let server = tokio::spawn(socket.serve(quiet()));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("ok\n"), "{reply}");
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert!(!path.exists(), "it takes its file with it");
    }

    #[tokio::test]
    async fn a_running_node_keeps_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let _first = AdminSocket::bind(&path, false).unwrap();
        assert!(matches!(AdminSocket::bind(&path, false), Err(AdminError::InUse(_))));
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(AdminSocket::bind(&path, false), Err(AdminError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
