//! Avro schemas, read from JSON into nodes that name each other by number, so that types may be recursive.
//!
//! Schemas come from a registry: nothing here trusts them. Their size, their number of nodes and their nesting are bounded.

use hashbrown::HashMap;
use serde_json::Value;

/// Schemas of more bytes, its references included, are refused.
pub(crate) const MAX_SCHEMA_BYTES: usize = 1 << 20;
const MAX_NODES: usize = 20_000;
/// A fixed type of more bytes than a record may have is no use, and its size must not overflow.
const MAX_FIXED: u64 = 1 << 30;

pub(crate) type NodeId = usize;
pub(crate) type Read<T> = Result<T, String>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    /// An int or a long: both are a zigzag number of any length.
    Integer {
        bits: u32,
        time: Option<Time>,
    },
    Float,
    Double,
    /// Bytes, text, or the unscaled digits of a decimal.
    Bytes,
    String,
    /// The scale of bytes that are a decimal.
    DecimalBytes(u32),
    Fixed(usize),
    DecimalFixed(usize, u32),
    UuidFixed,
    Enum(Vec<String>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Vec<Field>),
}

/// What an integer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    Days,
    Millis,
    Micros,
    Nanos,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub name: String,
    pub aliases: Vec<String>,
    pub default: Option<Value>,
    pub node: NodeId,
}

/// A schema: its nodes, and which of them is the whole.
#[derive(Debug)]
pub(crate) struct Schema {
    pub nodes: Vec<Kind>,
    /// The fields of the record that the schema is.
    pub fields: Vec<Field>,
    /// By node, whether its values take no byte at all. Arrays of these can have any length in few bytes.
    pub empty: Vec<bool>,
}

impl Schema {
    /// Read a schema; `references` are the schemas that it names types of, those that others need first.
    pub fn read(definition: &[u8], references: &[Vec<u8>]) -> Read<Self> {
        let bytes = definition.len() + references.iter().map(Vec::len).sum::<usize>();
        if bytes > MAX_SCHEMA_BYTES {
            return Err(format!("{bytes} bytes of schema, at most {MAX_SCHEMA_BYTES} are allowed"));
        }
        let mut parser = Parser { nodes: vec![], names: HashMap::new() };
        for reference in references {
            parser.read(&parse_json(reference)?, "")?;
        }
        let root = parser.read(&parse_json(definition)?, "")?;
        let Parser { mut nodes, .. } = parser;
        let Kind::Record(fields) = nodes[root].clone() else {
            return Err("the schema is not a record".into());
        };
        let empty = find_empty(&nodes);
        // Stepping over a record then costs no more than its bytes are worth, however many empty fields it has.
        for kind in &mut nodes {
            if let Kind::Record(fields) = kind {
                fields.retain(|field| !empty[field.node]);
            }
        }
        Ok(Self { nodes, fields, empty })
    }
}

/// JSON, with serde_json's limit on nesting (128).
pub(crate) fn parse_json(text: &[u8]) -> Read<Value> {
    serde_json::from_slice(text).map_err(|error| format!("not readable: {error}"))
}

struct Parser {
    nodes: Vec<Kind>,
    names: HashMap<String, NodeId>,
}

impl Parser {
    fn push(&mut self, kind: Kind) -> Read<NodeId> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("more than {MAX_NODES} types"));
        }
        self.nodes.push(kind);
        Ok(self.nodes.len() - 1)
    }

    fn read(&mut self, json: &Value, namespace: &str) -> Read<NodeId> {
        match json {
            Value::String(name) => self.named_or_primitive(name, namespace),
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.read(branch, namespace)).collect::<Read<Vec<_>>>()?;
                if branches.is_empty() {
                    return Err("a union of nothing".into());
                }
                self.push(Kind::Union(branches))
            }
            Value::Object(object) => self.complex(object, namespace),
            _ => Err("a type is a name, a list or an object".into()),
        }
    }

    fn named_or_primitive(&mut self, name: &str, namespace: &str) -> Read<NodeId> {
        let kind = match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "int" => Kind::Integer { bits: 32, time: None },
            "long" => Kind::Integer { bits: 64, time: None },
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::String,
            _ => {
                let full = full_name(name, namespace);
                let found = self.names.get(&full).or_else(|| self.names.get(name));
                return found.copied().ok_or_else(|| format!("the type '{}' is unknown", shown(name)));
            }
        };
        self.push(kind)
    }

    fn complex(&mut self, object: &serde_json::Map<String, Value>, namespace: &str) -> Read<NodeId> {
        let kind = match object.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            // {"type": {...}} and {"type": [...]}: the type inside.
            Some(inner @ (Value::Object(_) | Value::Array(_))) => return self.read(inner, namespace),
            _ => return Err("a type without 'type'".into()),
        };
        let logical = object.get("logicalType").and_then(Value::as_str);
        match kind {
            "record" | "error" | "enum" | "fixed" => self.named(kind, object, logical, namespace),
            "array" | "map" => {
                let part = if kind == "array" { "items" } else { "values" };
                let inner = object.get(part).ok_or_else(|| format!("{kind} without '{part}'"))?;
                let inner = self.read(inner, namespace)?;
                self.push(if kind == "array" { Kind::Array(inner) } else { Kind::Map(inner) })
            }
            _ => {
                let node = self.named_or_primitive(kind, namespace)?;
                let time = match logical {
                    Some("date") => Some(Time::Days),
                    Some("timestamp-millis") => Some(Time::Millis),
                    Some("timestamp-micros") => Some(Time::Micros),
                    Some("timestamp-nanos") => Some(Time::Nanos),
                    _ => None,
                };
                match (&self.nodes[node], kind, time) {
                    // Only of a type of its own: a name stands for what others use as well.
                    (Kind::Integer { bits: 32, .. }, "int", Some(Time::Days)) => {
                        self.nodes[node] = Kind::Integer { bits: 32, time };
                    }
                    (Kind::Integer { bits: 64, .. }, "long", Some(Time::Millis | Time::Micros | Time::Nanos)) => {
                        self.nodes[node] = Kind::Integer { bits: 64, time };
                    }
                    (Kind::Bytes, "bytes", None) if logical == Some("decimal") => {
                        if let Some(scale) = decimal_scale(object) {
                            self.nodes[node] = Kind::DecimalBytes(scale);
                        }
                    }
                    // The standard has it that a logical type that does not fit is as if it were not there.
                    _ => {}
                }
                Ok(node)
            }
        }
    }

    fn named(
        &mut self,
        kind: &str,
        object: &serde_json::Map<String, Value>,
        logical: Option<&str>,
        namespace: &str,
    ) -> Read<NodeId> {
        let name = object.get("name").and_then(Value::as_str).ok_or_else(|| format!("{kind} without a name"))?;
        let own = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, own);
        let inside = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        // Its number is there before its fields are: they may name it.
        let node = self.push(Kind::Null)?;
        if self.names.insert(full, node).is_some() {
            return Err(format!("the type '{}' is there twice", shown(name)));
        }
        self.nodes[node] = match kind {
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64).filter(|&size| size <= MAX_FIXED);
                let size = size.ok_or("fixed without a size that can be")? as usize;
                match logical {
                    Some("decimal") => match decimal_scale(object) {
                        Some(scale) => Kind::DecimalFixed(size, scale),
                        None => Kind::Fixed(size),
                    },
                    Some("uuid") if size == 16 => Kind::UuidFixed,
                    _ => Kind::Fixed(size),
                }
            }
            "enum" => {
                let symbols = object.get("symbols").and_then(Value::as_array).ok_or("enum without symbols")?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned));
                Kind::Enum(symbols.collect::<Option<_>>().ok_or("a symbol of an enum is not text")?)
            }
            _ => Kind::Record(self.fields(object, &inside)?),
        };
        Ok(node)
    }

    fn fields(&mut self, object: &serde_json::Map<String, Value>, namespace: &str) -> Read<Vec<Field>> {
        let fields = object.get("fields").and_then(Value::as_array).ok_or("record without fields")?;
        let mut read: Vec<Field> = Vec::with_capacity(fields.len());
        let mut seen = hashbrown::HashSet::new();
        for field in fields {
            let name = field.get("name").and_then(Value::as_str).ok_or("a field without a name")?;
            if !seen.insert(name) {
                return Err(format!("the field '{}' is there twice", shown(name)));
            }
            let aliases = field.get("aliases").and_then(Value::as_array).into_iter().flatten();
            let aliases = aliases.filter_map(Value::as_str).map(str::to_owned).collect();
            let json = field.get("type").ok_or_else(|| format!("the field '{}' has no type", shown(name)))?;
            // {"name": .., "type": "long", "logicalType": ..} at the field itself says nothing: the standard has it in the type.
            let node = self.read(json, namespace)?;
            read.push(Field { name: name.into(), aliases, default: field.get("default").cloned(), node });
        }
        Ok(read)
    }
}

fn decimal_scale(object: &serde_json::Map<String, Value>) -> Option<u32> {
    let precision = object.get("precision").and_then(Value::as_u64)?;
    let scale = object.get("scale").map_or(Some(0), Value::as_u64)?;
    // The standard has a decimal of an impossible precision be bytes.
    (precision > 0 && scale <= precision).then(|| u32::try_from(scale).ok()).flatten()
}

pub(super) fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.trim_start_matches('.').to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

fn shown(name: &str) -> String {
    crate::reason::excerpt(name.as_bytes())
}

/// Find the types whose values take no byte. A type that holds itself takes one in any value that ends.
fn find_empty(nodes: &[Kind]) -> Vec<bool> {
    let mut empty = vec![false; nodes.len()];
    // What is found empty makes others so: records of empty fields, inside out. Each round finds one at least.
    loop {
        let mut changed = false;
        for (id, kind) in nodes.iter().enumerate().filter(|(id, _)| !empty[*id]).collect::<Vec<_>>() {
            let is_empty = match kind {
                Kind::Null | Kind::Fixed(0) | Kind::DecimalFixed(0, _) => true,
                Kind::Record(fields) => fields.iter().all(|field| empty[field.node]),
                _ => false,
            };
            if is_empty {
                (empty[id], changed) = (true, true);
            }
        }
        if !changed {
            return empty;
        }
    }
}
