//! The tables of both databases, column by column: what stands in one is said in the other by this list, and
//! by nothing else. A test compares it with both schemas.

use tokio_postgres::types::Type;

/// How a column stands in either database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number in both; the width is PostgreSQL's.
    Small,
    /// The same.
    Int,
    /// The same.
    Big,
    /// 0 or 1 in SQLite.
    Bool,
    /// Text in both.
    Text,
    /// Bytes in both.
    Bytes,
    /// A number of `rw_names` in SQLite, the name itself in PostgreSQL.
    Name,
    /// The same; what is null in SQLite is empty in PostgreSQL, where it is part of a key.
    NameOrEmpty,
    /// Text that is null in SQLite and empty in PostgreSQL.
    TextOrEmpty,
    /// A number by which rows are in order; SQLite gives it anew, since it counts all spaces together.
    Order,
    /// SQLite's own number of a row, which means nothing elsewhere.
    Row,
    /// Only in PostgreSQL: its type there, and what it is by SQLite's columns.
    Derived(&'static Kind, &'static str),
}

impl Kind {
    /// Its type in PostgreSQL.
    pub(crate) fn of_postgres(self) -> Type {
        match self {
            Self::Small => Type::INT2,
            Self::Int => Type::INT4,
            Self::Big | Self::Order | Self::Row => Type::INT8,
            Self::Bool => Type::BOOL,
            Self::Text | Self::Name | Self::NameOrEmpty | Self::TextOrEmpty => Type::TEXT,
            Self::Bytes => Type::BYTEA,
            Self::Derived(kind, _) => kind.of_postgres(),
        }
    }
}

/// A table and what of it is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The order in which PostgreSQL's rows are written to a file: that in which they will be read there.
    pub(crate) order: &'static str,
    pub(crate) columns: &'static [(&'static str, Kind)],
}

/// Settings that say something about the database in which they stand, not about the node: which server it is
/// on, when it was promoted, which views were made in it, how often it was written.
pub(crate) const STAYS: &str = "name NOT IN ('@lineage', '@promoted', '@views', '@writes')";

use Kind::*;

/// Columns of `rw_records` and `rw_history`.
macro_rules! versions {
    () => {
        &[
            ("no", Row),
            ("space", Int),
            ("collection", Name),
            ("id", Text),
            ("local_id", Big),
            ("version", Big),
            ("stamp", Big),
            ("state", Small),
            ("joined_into", Text),
            ("owner", Name),
            ("author", Name),
            ("person", Name),
            ("modified_at", Big),
            ("contested", Bool),
            ("up_epoch", Name),
            ("up_version", Big),
            ("up_held", Text),
            ("marks", Text),
            ("data", Text),
        ]
    };
}

/// Every table that holds something of a node.
pub(crate) const TABLES: [Table; 20] = [
    Table { name: "rw_meta", order: "name", columns: &[("name", Text), ("value", Text)] },
    Table {
        name: "rw_spaces",
        order: "no",
        columns: &[
            ("no", Int),
            ("id", Text),
            ("head", Big),
            ("digest_count", Big),
            ("digest_sum", Big),
            ("next_local_id", Big),
            ("next_entry", Big),
            ("purged", Big),
            ("buried", Big),
            ("writes", Derived(&Big, "0")),
        ],
    },
    Table { name: "rw_records", order: "space, stamp", columns: versions!() },
    Table { name: "rw_history", order: "space, stamp, version", columns: versions!() },
    Table {
        name: "rw_receipts",
        order: "space, change",
        columns: &[
            ("space", Int),
            ("change", Text),
            ("content", Big),
            ("device", Name),
            ("verdict", Small),
            ("collection", Name),
            ("record", Text),
            ("version", Big),
            ("stamp", Big),
            ("detail", Text),
        ],
    },
    Table {
        name: "rw_fingerprints",
        order: "space, collection, print, at, id",
        columns: &[("space", Int), ("collection", Name), ("print", Text), ("at", Big), ("id", Text)],
    },
    Table {
        name: "rw_links",
        order: "space, parent_collection, parent, field, child_collection, child",
        columns: &[
            ("space", Int),
            ("parent_collection", Name),
            ("parent", Text),
            ("field", Text),
            ("child_collection", Name),
            ("child", Text),
        ],
    },
    Table {
        name: "rw_audiences",
        order: "space, entered",
        columns: &[
            ("no", Row),
            ("space", Int),
            ("collection", Name),
            ("record", Text),
            ("audience", Name),
            ("via_collection", NameOrEmpty),
            ("via", TextOrEmpty),
            ("entered", Big),
            ("left_at", Big),
        ],
    },
    Table {
        name: "rw_sights",
        order: "space, sight",
        columns: &[("space", Int), ("sight", Text), ("count", Big), ("sum", Big)],
    },
    Table {
        name: "rw_subscriptions",
        order: "space, entered",
        columns: &[
            ("no", Row),
            ("space", Int),
            ("reader", Name),
            ("audience", Name),
            ("via_collection", NameOrEmpty),
            ("via", TextOrEmpty),
            ("entered", Big),
            ("left_at", Big),
        ],
    },
    Table {
        name: "rw_outbox",
        order: "space, seq",
        columns: &[
            ("space", Int),
            ("seq", Big),
            ("collection", Name),
            ("record", Text),
            ("state", Small),
            ("own", Bool),
            ("batch", Text),
            ("attempts", Int),
            ("due", Big),
            ("accepted_at", Big),
            ("tried_at", Big),
            ("verdict", Small),
            ("reason", Text),
            ("receipt_stamp", Big),
            ("granted_epoch", Name),
            ("granted_version", Big),
            ("held", Text),
            ("conflicts", Text),
            ("also", Text),
            ("change", Text),
        ],
    },
    Table {
        name: "rw_batches",
        order: "space, no",
        columns: &[("no", Order), ("space", Int), ("id", Text), ("changes", Big), ("body", Bytes)],
    },
    Table {
        name: "rw_follow",
        order: "space",
        columns: &[
            ("space", Int),
            ("epoch", Text),
            ("cursor", Big),
            ("token", Text),
            ("staged", Text),
            ("staged_epoch", Text),
            ("audiences", Text),
            ("filling", Bool),
            ("anew", Bool),
        ],
    },
    Table {
        name: "rw_gaps",
        order: "space, begins",
        columns: &[("space", Int), ("begins", Big), ("after", Big), ("lost", Big), ("epoch", Text)],
    },
    Table {
        name: "rw_seen",
        order: "space, collection, id",
        columns: &[("space", Int), ("collection", Name), ("id", Text)],
    },
    Table {
        name: "rw_staging",
        order: "space, is_conflict, no",
        columns: &[
            ("no", Order),
            ("space", Int),
            (
                "is_conflict",
                Derived(
                    &Bool,
                    "(collection = (SELECT n.no FROM rw_names n WHERE n.name = 'conflict')) IS TRUE",
                ),
            ),
            ("collection", Name),
            ("id", Text),
            ("version", Big),
            ("stamp", Big),
            ("state", Small),
            ("joined_into", Text),
            ("owner", Name),
            ("author", Name),
            ("person", Name),
            ("modified_at", Big),
            ("data", Text),
        ],
    },
    Table {
        name: "rw_devices",
        order: "space, id",
        columns: &[
            ("id", Text),
            ("space", Text),
            ("name", Text),
            ("mode", Text),
            ("role", Text),
            ("status", Small),
            ("token_hash", Text),
            ("metadata", Text),
            ("created_at", Big),
            ("last_seen_at", Big),
            ("pulled", Big),
            ("pulled_shared", Big),
        ],
    },
    Table {
        name: "rw_members",
        order: "email",
        columns: &[
            ("email", Text),
            ("space", Text),
            ("role", Text),
            ("password_hash", Text),
            ("disabled", Bool),
            ("created_at", Big),
        ],
    },
    Table {
        name: "rw_runs",
        order: "space, no",
        columns: &[
            ("no", Order),
            ("space", Int),
            ("started_at", Big),
            ("duration_ms", Big),
            ("outcome", Small),
            ("pushed", Big),
            ("pulled", Big),
            ("held", Big),
            ("error", Text),
            ("device", Text),
        ],
    },
    Table {
        name: "rw_quarantine",
        order: "space, no",
        columns: &[
            ("no", Order),
            ("space", Int),
            ("device", Text),
            ("change", Text),
            ("received_at", Big),
            ("ended_at", Big),
            ("ended_by", Text),
            ("verdict", Small),
            ("content", Text),
        ],
    },
];

impl Table {
    /// Which of its rows are told.
    pub(crate) fn told(&self) -> &'static str {
        if self.name == "rw_meta" { STAYS } else { "true" }
    }

    /// The columns that a file gets from PostgreSQL.
    pub(crate) fn in_file(&self) -> impl Iterator<Item = (&'static str, Kind)> {
        let is_told = |kind: &Kind| !matches!(kind, Order | Row | Derived(..));
        self.columns.iter().copied().filter(move |(_, kind)| is_told(kind))
    }

    /// The columns that PostgreSQL gets from a file.
    pub(crate) fn on_server(&self) -> impl Iterator<Item = (&'static str, Kind)> {
        self.columns.iter().copied().filter(|(_, kind)| *kind != Row)
    }

    /// What is asked of PostgreSQL, in the order of [`Self::in_file`].
    pub(crate) fn ask_server(&self) -> String {
        let tell = |(name, kind)| match kind {
            NameOrEmpty | TextOrEmpty => format!("nullif({name}, '')"),
            _ => String::from(name),
        };
        let columns: Vec<String> = self.in_file().map(tell).collect();
        let Self { name, order, .. } = self;
        format!("SELECT {} FROM {name} WHERE {} ORDER BY {order}", columns.join(", "), self.told())
    }

    /// What is asked of SQLite, in the order of [`Self::on_server`].
    pub(crate) fn ask_file(&self) -> String {
        let named = |name: &str| format!("(SELECT n.name FROM rw_names n WHERE n.no = t.{name})");
        let tell = |(name, kind)| match kind {
            Name => named(name),
            NameOrEmpty => format!("coalesce({}, '')", named(name)),
            TextOrEmpty => format!("coalesce({name}, '')"),
            Derived(_, sql) => String::from(sql),
            _ => String::from(name),
        };
        let columns: Vec<String> = self.on_server().map(tell).collect();
        format!("SELECT {} FROM {} t WHERE {}", columns.join(", "), self.name, self.told())
    }
}

/// What is known of a column: its name, whether SQLite has it, and its type in PostgreSQL where that has it.
#[cfg(feature = "testing")]
pub type Known = (&'static str, bool, Option<&'static str>);

/// Every table with its columns, to be compared with both schemas.
#[cfg(feature = "testing")]
pub fn known() -> Vec<(&'static str, Vec<Known>)> {
    let type_of = |kind: Kind| match kind.of_postgres() {
        Type::INT2 => "smallint",
        Type::INT4 => "integer",
        Type::INT8 => "bigint",
        Type::BOOL => "boolean",
        Type::BYTEA => "bytea",
        _ => "text",
    };
    let column = |&(name, kind): &(&'static str, Kind)| {
        (name, !matches!(kind, Derived(..)), (kind != Row).then(|| type_of(kind)))
    };
    TABLES.iter().map(|table| (table.name, table.columns.iter().map(column).collect())).collect()
}
