//! Files without a mount. Each command asks the vault's daemon over connections of its own (`cli/files`). If no daemon
//! runs, the command starts one that ends with the command.

mod cat;
mod changes;
mod expand;
mod fetch;
mod get;
mod interrupt;
mod listings;
mod local;
mod put;
mod session;
mod trees;
mod which;
mod work;

pub(crate) use cat::cat;
pub(crate) use changes::{cp, mkdir, mv, rm};
pub(crate) use get::get;
pub(crate) use listings::{find, ls};
pub(crate) use put::put;
pub(crate) use trees::{du, tree};
