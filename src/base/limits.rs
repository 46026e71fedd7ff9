//! Every bound of the product, with its unit and its reason. Nothing in here is configuration: what an
//! administrator may turn lives in the part's `Options`, with its default there.

use std::time::Duration;

/// Bytes in a block of a body. Small enough to heal over a thin WAN in a second, large enough that a
/// 5 GiB package is 5,000 files and not 80,000.
pub const BLOCK_BYTES: u64 = 1 << 20;

/// Bytes in a piece: what is read, checked and handed to a connection at once. Bounds the memory of a
/// reader; a block has eight.
pub const PIECE_BYTES: usize = 128 << 10;

/// Bodies up to this many bytes live in their index record: a file each would cost 4 KiB and an inode.
pub const INLINE_BYTES: u64 = 16 << 10;

/// Bytes of a request or reply head from an agent's side. Real agents stay under 2 KiB.
pub const HEAD_BYTES: usize = 16 << 10;

/// Bytes read and thrown away from a client that still sends although it was refused: unread, they would end in a reset
/// that destroys the answer. One window of HTTP/2, and what a form or a small report has.
pub const DISCARDED_BYTES: u64 = 64 << 10;

/// How long the answer to a refused HTTP/2 request waits for the end of its body. A small body follows its head at once.
pub const DISCARD_FOR: Duration = Duration::from_secs(2);

/// Header fields in a request head; hyper answers 431 beyond it.
pub const HEAD_FIELDS: usize = 64;

/// Bytes of a request target.
pub const TARGET_BYTES: usize = 4 << 10;

/// Bytes of an upstream reply head: third-party servers are more talkative than agents.
pub const UPSTREAM_HEAD_BYTES: usize = 32 << 10;

/// Largest body length that is believed at all: 1 TiB. Beyond it a length is an attack or a mistake.
pub const BODY_BYTES: u64 = 1 << 40;

/// Ranges in one request after merging; more are answered with the whole body (RFC 9110 §14.2 allows it).
pub const RANGES: usize = 16;

/// Redirects followed within the configured hosts.
pub const REDIRECTS: usize = 3;

/// Readers of a fill are woken when this many new bytes wait for them …
pub const WAKE_BYTES: usize = 64 << 10;

/// … or when the oldest of them has waited this long. Per packet would cost a wake-up per agent and packet.
pub const WAKE_AFTER: Duration = Duration::from_millis(10);

/// Bytes of overlap fetched again and compared when a body is resumed on a connection or upstream other
/// than the one that began it. Catches mirrors that have another file of the same size.
pub const OVERLAP_BYTES: u64 = 16 << 10;

/// A range this far ahead of a fill opens a lane of its own; nearer ones are cheaper to wait for.
pub const LANE_AHEAD_BYTES: u64 = 4 << 20;

/// Lanes of one fill, the first included.
pub const LANES: usize = 3;

/// Sealed blocks of a running fill that stay in its own memory: readers near the front never touch the disk.
pub const FILL_RECENT_BLOCKS: usize = 2;

/// A body whose digest is known beforehand goes out only when it is proven, if it has no more bytes than this: another
/// upstream can be asked then and no agent notices. 4 MiB: catalogues, deltas and every file of a directory of
/// indexes; over a line of 10 Mbit/s it is a wait of three seconds. Of longer ones the last block is held back.
pub const HELD_BYTES: u64 = 4 << 20;

/// Files remembered for which some upstream sent wrong bytes. A forgotten one costs one more wrong fetch.
pub const WRONG_FILES: usize = 1_024;

/// How long upstreams that sent wrong bytes of a file are asked last for it: a mirror is rarely repaired faster.
pub const WRONG_FOR: Duration = Duration::from_secs(300);

/// How long a listed file that every upstream has wrong is answered with an error at once. As long as clients that insist
/// wait for another question about one file: a publication that is under way is over in minutes, and a crowd of agents
/// must not fetch what is known to be of no use.
pub const SPOILED_FOR: Duration = Duration::from_secs(5);

/// Longest lifetime that is guessed from `Last-Modified` where the origin says nothing about freshness
/// (RFC 9111 §4.2.2 suggests a tenth of the age): update files are replaced under their name, and a year-old
/// one would be "fresh" for a month.
pub const HEURISTIC_LIFETIME: Duration = Duration::from_secs(3_600);

/// An entry received this much later than "now" was stored under a wrong clock: its age is unknown.
pub const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// Bytes that an agent reads from a connection at once. Small: an agent is to be hardly felt on its machine.
pub const AGENT_BUFFER_BYTES: usize = 32 << 10;

/// Bytes of one catalogue file that an agent takes: it is read into memory, of which an agent has 20 MiB.
pub const AGENT_CATALOGUE_BYTES: usize = 4 << 20;

/// Bytes of all catalogue files of one update: they are in memory together, until each is held against the others.
pub const AGENT_CATALOGUES_BYTES: usize = 8 << 20;

/// Catalogue files of one folder that an agent reads for one update. An ePO folder has three.
pub const AGENT_CATALOGUES: usize = 64;

/// Bytes of a manifest of installed files: some 150 a file.
pub const MANIFEST_BYTES: u64 = 16 << 20;

/// Bytes of an answer of the agents' API that is JSON. A check-in's has some 100 for each policy.
pub const AGENT_ANSWER_BYTES: usize = 256 << 10;

/// Questions of people that wait at one agent.
pub const AGENT_QUESTIONS: usize = 16;

/// Messages of a handler that wait at one agent; more wait at the handler.
pub const AGENT_MESSAGES: usize = 16;

/// Addresses of handlers that one agent asks who they are. A list has a few; the rest is not asked.
pub const PROBED: usize = 64;

/// Addresses that are asked at the same time.
pub const PROBED_AT_ONCE: usize = 8;

/// Rules of one repository: each is a pattern that every request is matched against.
pub const RULES: usize = 256;

/// Characters in the pattern of a rule.
pub const PATTERN_BYTES: usize = 1 << 10;

/// Bytes of a certificate, key or token file. A chain is a few KiB, a bundle of all public roots 250 KiB.
pub const CREDENTIAL_BYTES: u64 = 1 << 20;

/// Bytes of a configuration file. A thousand repositories fit; a log or an image given by mistake does not.
pub const CONFIG_BYTES: u64 = 4 << 20;
/// Resident bytes an idle TLS connection may cost: 5,000 agents that keep one open fit in 160 MiB. A test measures it.
pub const IDLE_CONNECTION_BYTES: u64 = 32 << 10;

/// Files that one generation may name. Debian's main archive has 65,000 packages for one architecture; at some 200
/// bytes each in memory this is 100 MiB.
pub const LISTED_FILES: usize = 500_000;

/// Bytes of one catalogue file as it comes over the wire.
pub const CATALOGUE_BYTES: u64 = 64 << 20;

/// Bytes of one catalogue file unpacked: Debian's largest `Packages` has 60 MB.
pub const CATALOGUE_UNPACKED_BYTES: u64 = 256 << 20;

/// Generations of one catalogue that are kept in any case, the shown one included: agents with the lists of yesterday
/// get what those name.
pub const GENERATIONS: usize = 3;

/// Generations of one catalogue that are kept for agents that may still be reading them: publications that follow each
/// other within seconds, read by an agent that takes half a minute.
pub const GENERATIONS_IN_USE: usize = 16;

/// Catalogues of one repository: apt has one for each suite. What lies beyond goes by the rules.
pub const SCOPES: usize = 256;

/// Agents whose generation is remembered, by connection and by address. Two entries each, some 100 bytes.
pub const SESSIONS: usize = 100_000;

/// Names that are remembered as used in one generation; beyond it fetching ahead misses some.
pub const USED_FILES: usize = 20_000;

/// Files fetched ahead for one generation.
pub const AHEAD_FILES: usize = 20_000;

/// Bytes of one line of a catalogue. The longest in Debian, a list of what a package provides, has 30 KB.
pub const CATALOGUE_LINE_BYTES: usize = 256 << 10;

/// Catalogue files of one generation that must all be read. An ePO tree has one a directory: a few hundred.
pub const CATALOGUES: usize = 10_000;

/// Folders below each other in a catalogue's names. An ePO tree has five.
pub const CATALOGUE_DEPTH: usize = 16;

/// Bytes of a `SiteStat.xml`. A real one has under 200.
pub const SITE_STAT_BYTES: usize = 64 << 10;

/// Files of one source package. Debian's most divided ones have 20.
pub const SOURCE_FILES: usize = 256;

/// Increments that are fetched ahead as one chain. Mirrors keep some 30; over a longer way clients take the whole file.
pub const DELTAS: u64 = 64;

/// KiB that unpacking one catalogue may use: `xz -9` wants 65 MiB, and nobody publishes with more.
pub const UNPACK_MEMORY_KIB: u32 = 96 << 10;

/// Bytes of a question to the admin API: 10,000 patterns of a purge fit.
pub const ADMIN_BODY_BYTES: usize = 1 << 20;

/// Patterns of one purge, pin or warm-up: the list of a large release fits.
pub const PATTERNS: usize = 10_000;

/// Purges whose entries are not swept yet. Each is matched against every look-up meanwhile.
pub const PURGES: usize = 64;

/// Bytes of an agent's id: a GUID in braces has 38, a host name up to 253 and nobody uses one of those.
pub const AGENT_ID_BYTES: usize = 128;

/// Bytes of the name of a handler, group, category, policy or repository.
pub const NAME_BYTES: usize = 64;

/// Bytes of the name of a rule, for people only. ePO allows as many.
pub const RULE_NAME_BYTES: usize = 128;

/// Bytes of a tag.
pub const TAG_BYTES: usize = 128;

/// Steps of a place in the system tree. Real ones have under ten.
pub const TREE_DEPTH: usize = 32;

/// Bytes of a place in the system tree.
pub const TREE_PATH_BYTES: usize = 1 << 10;

/// Control documents of an authority, policies included.
pub const DOCUMENTS: usize = 10_000;

/// Bytes of one control document that is no policy: 100,000 agents with tags are 8 MB of TOML.
pub const DOCUMENT_BYTES: usize = 32 << 20;

/// Bytes of the body of a policy.
pub const POLICY_BYTES: usize = 1 << 20;

/// Bytes of all control documents: every handler keeps two versions of them.
pub const DOCUMENTS_BYTES: usize = 128 << 20;

/// Findings told about one control document. Who has made so many mistakes has made one of them a thousand times.
pub const PROBLEMS: usize = 200;

/// Handlers of a fleet.
pub const HANDLERS: usize = 2_000;

/// Groups of handlers.
pub const GROUPS: usize = 2_000;

/// Assignment rules, and policy assignment rules: ten times what was asked for.
pub const FLEET_RULES: usize = 50_000;

/// Agents that the control documents know by name.
pub const FLEET_AGENTS: usize = 500_000;

/// Handlers in one sitelist: an agent that has tried so many has no network.
pub const SITELIST_HANDLERS: usize = 100;

/// Bytes of a sitelist that is read.
pub const SITELIST_BYTES: usize = 256 << 10;

/// Bytes of a sitelist that is written before more handlers are left out: what is written can always be read.
pub const SITELIST_WRITTEN_BYTES: usize = 192 << 10;

/// Sites of a sitelist.
pub const SITES: usize = 1_000;

/// Elements of XML within each other. A sitelist has four.
pub const XML_DEPTH: usize = 16;

/// Attributes of one element of XML. A site has some twelve.
pub const XML_ATTRIBUTES: usize = 64;

/// Bytes of an export of policy assignment rules.
pub const EXPORT_BYTES: usize = 4 << 20;

/// Operators and operands of one expression of such a rule, and alternatives that it is turned into.
pub const EXPRESSION_PARTS: usize = 1_000;

/// Rules that one imported rule may become: each `or` in its expression is another one.
pub const EXPRESSION_RULES: usize = 64;

/// Addresses and tags that an agent may say of itself; more are not looked at.
pub const FACTS: usize = 64;

/// Repository paths of one handler, and repositories of a fleet.
pub const REPOSITORIES: usize = 16;

/// Commands that wait for one node: a purge an hour over a long weekend fits.
pub const COMMANDS: usize = 256;

/// Bytes of one command's question. A few hundred patterns fit, and all commands for 1,000 nodes stay small.
pub const COMMAND_BYTES: usize = 64 << 10;

/// Nodes that pass a command on before it counts as going in a circle.
pub const COMMAND_HOPS: u8 = 16;

/// Orders whose outcome is remembered.
pub const ORDERS: usize = 256;

/// Nodes behind other nodes.
pub const NODES_BELOW: usize = 2_000;

/// Bytes of what a node tells the one above it at a time: outcomes of all its commands and names of those behind it.
pub const NODE_BODY_BYTES: usize = 4 << 20;

/// Questions of nodes that are held at the same time.
pub const HELD_QUESTIONS: usize = 4_000;

/// Clients that are told from each other in the minute in which they come for updates: 128 KiB. More are told of more often.
pub const PASSERS: usize = 16_384;

/// Clients that have come for updates and are not in the list of agents yet.
pub const PASSERS_WAITING: usize = 1_024;

/// Bytes of a `User-Agent` that are looked at: those of pip have 500.
pub const USER_AGENT_BYTES: usize = 1_024;

/// Catalogues of directories whose version is kept for comparing it with that of agents. Names come from agents.
pub const EDITIONS: usize = 256;
