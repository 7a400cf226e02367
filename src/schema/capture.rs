//! Reads a snapshot from the catalogue of a server.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::de::DeserializeOwned;

use super::object::{
    Attribute, Body, Column, Constraint, Domain, Extension, Grant, Index, Kind, Object, ObjectId,
    Policy, Sequence, Table, Trigger, View,
};
use super::rows::{
    ColumnRow, DependencyRow, ExtensionRow, NamespaceRow, PartRow, RoutineRow, SequenceRow,
    TableRow, TextBody, TypeRow, ViewRow,
};
use super::snapshot::Snapshot;
use crate::kernel::{Bind, SqlFile};
use crate::postgres::{PgError, PgReader};
use crate::sql_file;

const NAMESPACES: SqlFile = sql_file!("schema/namespaces");
const EXTENSIONS: SqlFile = sql_file!("schema/extensions");
const TYPES: SqlFile = sql_file!("schema/types");
const SEQUENCES: SqlFile = sql_file!("schema/sequences");
const TABLES: SqlFile = sql_file!("schema/tables");
const COLUMNS: SqlFile = sql_file!("schema/columns");
const CONSTRAINTS: SqlFile = sql_file!("schema/constraints");
const INDEXES: SqlFile = sql_file!("schema/indexes");
const VIEWS: SqlFile = sql_file!("schema/views");
const ROUTINES: SqlFile = sql_file!("schema/routines");
const TRIGGERS: SqlFile = sql_file!("schema/triggers");
const POLICIES: SqlFile = sql_file!("schema/policies");
const RULES: SqlFile = sql_file!("schema/rules");
const STATISTICS: SqlFile = sql_file!("schema/statistics");
const DEPENDENCIES: SqlFile = sql_file!("schema/dependencies");
const UNCOVERED: SqlFile = sql_file!("schema/uncovered");

/// The SQL files that a snapshot is read with.
pub const SCHEMA_SQL: [&SqlFile; 16] = [
    &COLUMNS,
    &CONSTRAINTS,
    &DEPENDENCIES,
    &EXTENSIONS,
    &INDEXES,
    &NAMESPACES,
    &POLICIES,
    &ROUTINES,
    &RULES,
    &SEQUENCES,
    &STATISTICS,
    &TABLES,
    &TRIGGERS,
    &TYPES,
    &UNCOVERED,
    &VIEWS,
];

/// Where the engine keeps its own tables on a target.
const OWN_SCHEMA: &str = "lakeops";

/// Reads the structure of a database: sixteen catalogue queries, each in a `READ ONLY` transaction.
/// Left out are the system's schemas, `lakeops`, `excluded` ones, and what belongs to an extension.
pub async fn capture(reader: PgReader, excluded: &[String]) -> Result<Snapshot, PgError> {
    let reader = reader.with_empty_search_path();
    let mut schemas = excluded.to_vec();
    schemas.push(OWN_SCHEMA.to_owned());
    let source = Source { reader: &reader, binds: [Bind::TextArray(schemas)] };
    let mut builder = Builder::default();
    let read = builder.read(&source).await;
    reader.close().await;
    read.map(|()| builder.snapshot)
}

struct Source<'a> {
    reader: &'a PgReader,
    binds: [Bind; 1],
}

impl Source<'_> {
    async fn rows<T: DeserializeOwned>(&self, file: &SqlFile) -> Result<Vec<T>, PgError> {
        self.reader.rows(file, &self.binds).await
    }
}

/// What the catalogue calls an object: its class, OID, and part.
type Place = (String, i64, i64);

const CLASS: &str = "pg_class";

#[derive(Default)]
struct Builder {
    snapshot: Snapshot,
    places: HashMap<Place, ObjectId>,
    /// Composite types by the relation that has their attributes.
    composites: BTreeMap<i64, ObjectId>,
}

impl Builder {
    async fn read(&mut self, source: &Source<'_>) -> Result<(), PgError> {
        self.namespaces(source.rows(&NAMESPACES).await?);
        self.extensions(source.reader.rows(&EXTENSIONS, &[]).await?);
        self.types(source.rows(&TYPES).await?);
        self.tables(source.rows(&TABLES).await?);
        self.views(source.rows(&VIEWS).await?);
        self.columns(source.rows(&COLUMNS).await?);
        self.sequences(source.rows(&SEQUENCES).await?);
        self.routines(source.rows(&ROUTINES).await?);
        self.constraints(source.rows(&CONSTRAINTS).await?);
        self.parts(Kind::Index, source.rows::<PartRow<Index>>(&INDEXES).await?, CLASS, Body::Index);
        let triggers: Vec<PartRow<Trigger>> = source.rows(&TRIGGERS).await?;
        self.parts(Kind::Trigger, triggers, "pg_trigger", Body::Trigger);
        let policies: Vec<PartRow<Policy>> = source.rows(&POLICIES).await?;
        self.parts(Kind::Policy, policies, "pg_policy", Body::Policy);
        let text = |TextBody { definition }| Body::Text { definition };
        self.parts(Kind::Rule, source.rows(&RULES).await?, "pg_rewrite", text);
        self.parts(Kind::Statistics, source.rows(&STATISTICS).await?, "pg_statistic_ext", text);
        self.dependencies(source.reader.rows(&DEPENDENCIES, &[]).await?);
        self.snapshot.uncovered = source.rows(&UNCOVERED).await?;
        Ok(())
    }

    fn add(&mut self, id: ObjectId, place: Place, object: Object) {
        self.places.insert(place, id.clone());
        self.snapshot.objects.insert(id, object);
    }

    fn relation(&self, oid: i64) -> Option<&ObjectId> {
        self.places.get(&(CLASS.to_owned(), oid, 0))
    }

    /// Schema and name of a table; of one that was dropped meanwhile nothing.
    fn pair(&self, oid: i64) -> Option<[String; 2]> {
        self.relation(oid).map(|id| [id.schema.clone(), id.name.clone()])
    }

    fn namespaces(&mut self, rows: Vec<NamespaceRow>) {
        for NamespaceRow { oid, name, comment, grants } in rows {
            let id = ObjectId::new(Kind::Schema, &name, &name);
            let object = Object { comment, grants, ..bare(Body::Schema {}) };
            self.add(id, ("pg_namespace".to_owned(), oid, 0), object);
        }
    }

    fn extensions(&mut self, rows: Vec<ExtensionRow>) {
        for ExtensionRow { oid, name, schema, version } in rows {
            let id = ObjectId::new(Kind::Extension, "", &name);
            let object = bare(Body::Extension(Extension { schema, version }));
            self.add(id, ("pg_extension".to_owned(), oid, 0), object);
        }
    }

    fn types(&mut self, rows: Vec<TypeRow>) {
        for row in rows {
            let id = ObjectId::new(Kind::Type, &row.schema, &row.name);
            let body = match row.kind.as_str() {
                "e" => Body::Enum { labels: row.labels },
                "c" => {
                    self.composites.insert(row.relation, id.clone());
                    self.places.insert((CLASS.to_owned(), row.relation, 0), id.clone());
                    Body::Composite { attributes: Vec::new() }
                }
                _ => Body::Domain(Domain {
                    base: row.base.unwrap_or_default(),
                    collation: row.collation,
                    not_null: row.not_null,
                    default: row.default_value,
                    checks: row.checks,
                }),
            };
            let object = Object { comment: row.comment, grants: row.grants, ..bare(body) };
            self.add(id, ("pg_type".to_owned(), row.oid, 0), object);
        }
    }

    fn tables(&mut self, rows: Vec<TableRow>) {
        for row in &rows {
            let id = ObjectId::new(Kind::Table, &row.schema, &row.name);
            self.places.insert((CLASS.to_owned(), row.oid, 0), id);
        }
        for row in rows {
            let id = ObjectId::new(Kind::Table, &row.schema, &row.name);
            let body = Body::Table(Table {
                unlogged: row.unlogged,
                partition_key: row.partition_key,
                partition_of: row.partition_of.and_then(|oid| self.pair(oid)),
                bound: row.bound,
                inherits: row.inherits.into_iter().filter_map(|oid| self.pair(oid)).collect(),
                options: row.options,
                row_security: row.row_security,
                forced_row_security: row.forced_row_security,
                replica_identity: row.replica_identity,
            });
            let object = Object { comment: row.comment, grants: row.grants, ..bare(body) };
            self.add(id, (CLASS.to_owned(), row.oid, 0), object);
        }
    }

    fn views(&mut self, rows: Vec<ViewRow>) {
        for row in rows {
            let id = ObjectId::new(Kind::View, &row.schema, &row.name);
            let body = Body::View(View {
                materialized: row.materialized,
                definition: row.definition,
                columns: row.columns,
                options: row.options,
            });
            let object = Object { comment: row.comment, grants: row.grants, ..bare(body) };
            self.add(id, (CLASS.to_owned(), row.oid, 0), object);
        }
    }

    fn columns(&mut self, rows: Vec<ColumnRow>) {
        for row in rows {
            if let Some(owner) = self.composites.get(&row.relation) {
                let attribute =
                    Attribute { name: row.name, of_type: row.of_type, collation: row.collation };
                if let Some(Object { body: Body::Composite { attributes }, .. }) =
                    self.snapshot.objects.get_mut(owner)
                {
                    attributes.push(attribute);
                }
                continue;
            }
            if let Some(table) = self.relation(row.relation).cloned() {
                self.column(&table, row);
            }
        }
    }

    fn column(&mut self, table: &ObjectId, row: ColumnRow) {
        let id = table.part(Kind::Column, &row.name);
        let is_generated = !row.generated.is_empty();
        if let Some(oid) = row.default_oid {
            let place = ("pg_attrdef".to_owned(), oid, 0);
            match row.expression.clone() {
                Some(expression) if !is_generated => {
                    let mut default = bare(Body::Default { expression });
                    default.needs.insert(id.clone());
                    self.add(table.part(Kind::Default, &row.name), place, default);
                }
                _ => drop(self.places.insert(place, id.clone())),
            }
        }
        let body = Body::Column(Column {
            of_type: row.of_type,
            collation: row.collation,
            not_null: row.not_null,
            identity: row.identity,
            sequence: row.sequence,
            generated: row.generated,
            expression: row.expression.filter(|_| is_generated),
        });
        let needs = [table.clone()].into();
        let (comment, grants, position) = (row.comment, row.grants, row.part);
        let object = Object { body, comment, grants, needs, position };
        self.add(id, (CLASS.to_owned(), row.relation, row.part), object);
    }

    fn sequences(&mut self, rows: Vec<SequenceRow>) {
        for row in rows {
            let id = ObjectId::new(Kind::Sequence, &row.schema, &row.name);
            let owner = row.owner_table.zip(row.owner_part);
            let owner = owner.and_then(|(table, part)| {
                self.places.get(&(CLASS.to_owned(), table, part)).cloned()
            });
            let owned_by = owner.map(|id| [id.schema, id.relation, id.name]);
            let body = Body::Sequence(Sequence {
                of_type: row.of_type,
                numbers: row.numbers,
                unlogged: row.unlogged,
                owned_by,
            });
            let object = Object { comment: row.comment, grants: row.grants, ..bare(body) };
            self.add(id, (CLASS.to_owned(), row.oid, 0), object);
        }
    }

    fn routines(&mut self, rows: Vec<RoutineRow>) {
        for row in rows {
            let name = format!("{}({})", row.name, row.arguments);
            let id = ObjectId::new(Kind::Routine, &row.schema, &name);
            let body = Body::Routine(row.body);
            let object = Object { comment: row.comment, grants: row.grants, ..bare(body) };
            self.add(id, ("pg_proc".to_owned(), row.oid, 0), object);
        }
    }

    fn constraints(&mut self, rows: Vec<PartRow<Constraint>>) {
        for row in &rows {
            if let (Some(index), Some(table)) = (row.index, self.relation(row.relation)) {
                let id = table.part(Kind::Constraint, &row.name);
                self.places.insert((CLASS.to_owned(), index, 0), id);
            }
        }
        self.parts(Kind::Constraint, rows, "pg_constraint", Body::Constraint);
    }

    fn parts<B>(&mut self, kind: Kind, rows: Vec<PartRow<B>>, class: &str, body: fn(B) -> Body) {
        for row in rows {
            let Some(relation) = self.relation(row.relation).cloned() else { continue };
            let id = match (kind, &row.schema) {
                (Kind::Statistics, Some(schema)) => ObjectId::new(kind, schema, &row.name),
                _ => relation.part(kind, &row.name),
            };
            let mut object = Object { comment: row.comment, ..bare(body(row.body)) };
            object.needs.insert(relation);
            self.add(id, (class.to_owned(), row.oid, 0), object);
        }
    }

    fn dependencies(&mut self, rows: Vec<DependencyRow>) {
        for row in rows {
            let Some(id) = self.find(row.class, row.object, row.part).cloned() else { continue };
            let Some(needs) = self.find(row.needs_class, row.needs, row.needs_part).cloned() else {
                continue;
            };
            if id != needs
                && let Some(object) = self.snapshot.objects.get_mut(&id)
            {
                object.needs.insert(needs);
            }
        }
    }

    /// The object at a place; for a part that is none of its own, the whole.
    fn find(&self, class: String, oid: i64, part: i64) -> Option<&ObjectId> {
        let mut place = (class, oid, part);
        if part != 0 && !self.places.contains_key(&place) {
            place.2 = 0;
        }
        self.places.get(&place)
    }
}

fn bare(body: Body) -> Object {
    let (grants, needs): (BTreeSet<Grant>, BTreeSet<ObjectId>) = (BTreeSet::new(), BTreeSet::new());
    Object { body, comment: None, grants, needs, position: 0 }
}
