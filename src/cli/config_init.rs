//! `waypost config init`: a commented configuration to begin with.

use super::args::Role;
use super::exit::Exit;
use super::talk;

/// The sample for `role`, as it is in `deploy/examples`.
pub const fn sample(role: Role) -> &'static str {
    match role {
        Role::Branch => include_str!("../../deploy/examples/branch.toml"),
        Role::Region => include_str!("../../deploy/examples/region.toml"),
        Role::Hq => include_str!("../../deploy/examples/hq.toml"),
    }
}

/// Prints it.
pub(super) fn run(role: Role) -> anyhow::Result<Exit> {
    talk::data(sample(role))?;
    Ok(Exit::Done)
}
