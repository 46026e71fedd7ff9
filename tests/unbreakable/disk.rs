//! File systems of a test's own.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Shuts a file system down at once, without so much as writing its journal (`FS_IOC_SHUTDOWN`, `NOLOGFLUSH`).
const SHUT_DOWN: &str = "import fcntl,os,struct,sys\n\
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))\n";

fn runs(program: &str, words: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An ext4 in a file, mounted. Dropping it takes it away.
pub(crate) struct Loop {
    image: PathBuf,
    dir: PathBuf,
}

impl Loop {
    /// On `dir`; nothing where that is not allowed.
    pub(crate) fn on(image: &Path, dir: &Path) -> Option<Self> {
        let root = rustix::process::geteuid().is_root() && runs("python3", &["-c", "import fcntl"]);
        let made = root && fs::File::create(image).and_then(|file| file.set_len(256 << 20)).is_ok();
        let text = image.to_string_lossy();
        let done = made && runs("mkfs.ext4", &["-q", "-F", "-m", "0", &text]);
        let this = Self { image: image.to_owned(), dir: dir.to_owned() };
        (done && this.mount()).then_some(this)
    }

    fn mount(&self) -> bool {
        runs("mount", &["-o", "loop", &self.image.to_string_lossy(), &self.dir.to_string_lossy()])
    }

    /// All that was not synced is lost, and the file system comes back.
    pub(crate) fn cut_the_power(&self) {
        let dir = self.dir.to_string_lossy();
        assert!(runs("python3", &["-c", SHUT_DOWN, &dir]), "the file system can be shut down");
        assert!(runs("umount", &[&dir]), "nobody uses it any more");
        assert!(self.mount(), "its journal can be replayed");
    }

    /// Whether this is worth anything: what was not synced has to be gone, and what was to be there.
    pub(crate) fn loses_what_was_not_synced(&self) {
        let (lost, kept) = (self.dir.join("lost"), self.dir.join("kept"));
        fs::File::create(&kept)
            .and_then(|mut file| file.write_all(b"kept").and_then(|()| file.sync_all()))
            .expect("written");
        fs::write(&lost, b"lost").expect("written");
        self.cut_the_power();
        assert_eq!(fs::read(&kept).ok().as_deref(), Some(&b"kept"[..]));
        assert_ne!(fs::read(&lost).ok().as_deref(), Some(&b"lost"[..]), "the power was not cut");
        let _ = fs::remove_file(lost);
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Lazily: the node may still have files open when a test panics.
        runs("umount", &["-l", &self.dir.to_string_lossy()]);
    }
}
