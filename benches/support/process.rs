//! Child processes with all that they start, and what they cost.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// `USER_HZ`, in which Linux tells process times on every architecture that we build for.
const TICKS: f64 = 100.0;
/// How long a server may take to end by itself.
const GRACE: Duration = Duration::from_secs(8);

/// Programs that were started together. Dropping them ends them and their children.
#[derive(Default)]
pub struct Tree(Vec<Child>);

impl Tree {
    /// Starts one more; what it says goes to `log`.
    pub fn start(&mut self, command: &mut Command, log: &Path) -> anyhow::Result<()> {
        let log = fs::File::options().create(true).append(true).open(log)?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.0.push(child.with_context(|| format!("cannot start {}", command.get_program().display()))?);
        Ok(())
    }

    /// Whether one of them has ended, and how.
    pub fn ended(&mut self) -> anyhow::Result<Option<std::process::ExitStatus>> {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    /// Processor time used so far, user and system, by all of them and the children they waited for.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let ticks: u64 = self.pids()?.into_iter().filter_map(|pid| fields(pid).map(|it| it.ticks)).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / TICKS))
    }

    /// Bytes of memory now; what processes share is divided between them (`Pss`).
    pub fn memory(&self) -> anyhow::Result<u64> {
        self.sum("smaps_rollup", "Pss:")
    }

    /// The most memory each of them ever had resident, in bytes, added up.
    pub fn peak(&self) -> anyhow::Result<u64> {
        self.sum("status", "VmHWM:")
    }

    /// Asks the first to end, and waits until it has.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        let first = self.0.first_mut().context("nothing was started")?;
        kill_process(Pid::from_child(first), Signal::TERM)?;
        first.wait()?;
        Ok(())
    }

    fn sum(&self, file: &str, key: &str) -> anyhow::Result<u64> {
        let mut kib = 0;
        for pid in self.pids()? {
            // A child may end between the two looks.
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/{file}")) else { continue };
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0 kB");
            kib += line.trim().trim_end_matches(" kB").parse::<u64>()?;
        }
        Ok(kib << 10)
    }

    /// The roots and everything below them.
    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let mut below: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(it) = fields(pid) {
                below.entry(it.parent).or_default().push(pid);
            }
        }
        let mut all: Vec<u32> = self.0.iter().map(Child::id).collect();
        let mut at = 0;
        while let Some(pid) = all.get(at) {
            all.extend(below.remove(pid).unwrap_or_default());
            at += 1;
        }
        Ok(all)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let pids = self.pids().unwrap_or_default();
        for child in &self.0 {
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < GRACE && self.0.iter_mut().any(|child| matches!(child.try_wait(), Ok(None))) {
            std::thread::sleep(Duration::from_millis(10));
        }
        // What is left of them: only what we started, or what that started and is still the same.
        for pid in pids {
            if let (true, Some(pid)) =
                (fields(pid).is_some(), i32::try_from(pid).ok().and_then(Pid::from_raw))
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

struct Fields {
    parent: u32,
    ticks: u64,
}

/// Of `/proc/PID/stat`: the parent is its 4th field; `utime`, `stime` and those of children waited for are 14 to 17.
fn fields(pid: u32) -> Option<Fields> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces; the fields after its parenthesis do not.
    let (_, rest) = stat.rsplit_once(") ")?;
    let rest: Vec<&str> = rest.split(' ').collect();
    let ticks = rest.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Fields { parent: rest.get(1)?.parse().ok()?, ticks })
}
