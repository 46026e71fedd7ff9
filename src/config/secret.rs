//! Secrets by reference: the configuration says where one is, never what it is.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use crate::base::limits::CREDENTIAL_BYTES;

/// Where a secret is. Its value is read when it is needed and is in no log, error or `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// A secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is missing, is no file, or may not be read. The administrator's.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is no secret: more than [`CREDENTIAL_BYTES`]. The administrator's.
    #[error("{} is larger than 1 MiB", .0.display())]
    TooLarge(PathBuf),
    /// The environment variable is not set. The administrator's.
    #[error("the environment variable {0} is not set")]
    Env(String),
}

impl Secret {
    /// Reads the value now, at most [`CREDENTIAL_BYTES`]. Blocks on the file system.
    ///
    /// # Errors
    /// Names the file or variable, never anything of its content.
    pub fn read(&self) -> Result<Vec<u8>, SecretError> {
        match self {
            Self::File(path) => {
                let failed = |error| SecretError::File { path: path.clone(), error };
                let mut value = Vec::new();
                let file = File::open(path).map_err(failed)?;
                file.take(CREDENTIAL_BYTES + 1).read_to_end(&mut value).map_err(failed)?;
                if value.len() as u64 > CREDENTIAL_BYTES {
                    return Err(SecretError::TooLarge(path.clone()));
                }
                Ok(value)
            }
            Self::Env(name) => std::env::var_os(name)
                .map(std::os::unix::ffi::OsStringExt::into_vec)
                .ok_or_else(|| SecretError::Env(name.clone())),
        }
    }
}

/// Shows the reference, which is no secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "Secret(file {})", path.display()),
            Self::Env(name) => write!(f, "Secret(env {name})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_when_asked_for_and_never_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        std::fs::write(&path, "hunter2").expect("a file");
        let secret = Secret::File(path);
        assert_eq!(secret.read().expect("its value"), b"hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }

    #[test]
    fn a_missing_secret_is_named() {
        let error = Secret::Env("WAYPOST_NO_SUCH_VARIABLE".to_owned()).read().expect_err("not set");
        assert!(error.to_string().contains("WAYPOST_NO_SUCH_VARIABLE"));
        let error = Secret::File(PathBuf::from("/no/such/file")).read().expect_err("not there");
        assert!(error.to_string().contains("/no/such/file"));
    }

    #[test]
    fn a_file_that_is_no_secret_is_not_read_to_its_end() {
        let error = Secret::File(PathBuf::from("/dev/zero")).read().expect_err("endless");
        assert!(matches!(error, SecretError::TooLarge(_)));
    }
}
