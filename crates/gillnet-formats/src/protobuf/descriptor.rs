//! Which fields of a message are columns, from descriptors as protoc or a registry writes them.

use hashbrown::{HashMap, HashSet};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::avro::MAX_SCHEMA_BYTES;
use crate::schema::Column;

pub(crate) type Read<T> = Result<T, String>;

/// How the bytes of a field are read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Form {
    Boolean,
    /// int32 and int64; the former is cut to 32 bits, as parsers do.
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    Text,
    Bytes,
    /// Names by number; a closed one (proto2's) takes a number without a name for no value at all.
    Enum {
        names: HashMap<i32, String>,
        closed: bool,
    },
    /// `google.protobuf.Timestamp`.
    Timestamp,
    /// A message of `google/protobuf/wrappers.proto`, whose field 1 is the value.
    Wrapper(Box<Form>),
    /// What no column can hold: another message, a list, a map.
    Other(&'static str),
}

/// What a field is when the record does not have it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Absent {
    Null,
    /// A value of the kind that `Slot` has.
    Number(u64),
    Text(Vec<u8>),
}

#[derive(Debug)]
pub(crate) struct Field {
    pub form: Form,
    pub column: usize,
    pub absent: Absent,
}

/// How records of one message are read into the columns.
#[derive(Debug)]
pub(crate) struct Program {
    pub fields: Vec<Field>,
    /// Field number to what it is: a column's field, and which others of its oneof it takes the place of.
    pub by_number: HashMap<u32, (Option<usize>, Vec<usize>)>,
    /// Columns that the message has no field for.
    pub missing: Vec<usize>,
}

/// The files of a schema, by their types' full names.
#[derive(Debug)]
pub(crate) struct Files {
    files: Vec<FileDescriptorProto>,
}

impl Files {
    /// Read a descriptor set, as `protoc --include_imports --descriptor_set_out` writes it.
    pub fn from_set(bytes: &[u8]) -> Read<Self> {
        check_size(bytes.len())?;
        let set = FileDescriptorSet::decode(bytes).map_err(|error| format!("no descriptor set: {error}"))?;
        if set.file.is_empty() {
            return Err("a descriptor set without a file".into());
        }
        Ok(Self { files: set.file })
    }

    /// Read a registry's file, and those that it imports.
    pub fn from_file(bytes: &[u8], references: &[Vec<u8>]) -> Read<Self> {
        check_size(bytes.len() + references.iter().map(Vec::len).sum::<usize>())?;
        let read =
            |bytes: &[u8]| FileDescriptorProto::decode(bytes).map_err(|error| format!("no file descriptor: {error}"));
        let files = std::iter::once(bytes).chain(references.iter().map(Vec::as_slice));
        Ok(Self { files: files.map(read).collect::<Read<_>>()? })
    }

    /// The program of a message, by its full name, or by its own where only one has it.
    pub fn named(&self, name: &str, columns: &[Column]) -> Read<Program> {
        let types = Types::new(&self.files)?;
        let wanted = name.trim_start_matches('.');
        let mut found: Vec<&String> = types.messages.keys().filter(|full| *full == wanted).collect();
        if found.is_empty() {
            found = types.messages.keys().filter(|full| full.rsplit('.').next() == Some(wanted)).collect();
        }
        match found.as_slice() {
            [full] => types.program(full, columns),
            [] => {
                let mut known: Vec<_> = types.messages.keys().take(20).cloned().collect();
                known.sort_unstable();
                Err(format!("there is no message '{wanted}'; there are {}", known.join(", ")))
            }
            _ => Err(format!("several messages are named '{wanted}'; give the full name, with its package")),
        }
    }

    /// The program of the message at these indices: of the first file's messages, then of those inside.
    pub fn indexed(&self, path: &[u32], columns: &[Column]) -> Read<Program> {
        let file = &self.files[0];
        let mut name = file.package().to_owned();
        let mut messages = &file.message_type;
        for &index in path {
            let message = messages.get(index as usize).ok_or_else(|| format!("the schema has no message {path:?}"))?;
            name = join(&name, message.name());
            messages = &message.nested_type;
        }
        Types::new(&self.files)?.program(&name, columns)
    }
}

fn check_size(bytes: usize) -> Read<()> {
    if bytes > MAX_SCHEMA_BYTES {
        return Err(format!("{bytes} bytes of schema, at most {MAX_SCHEMA_BYTES} are allowed"));
    }
    Ok(())
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

/// The types of some files, by full name, with what a field needs to know of the file.
struct Types<'f> {
    messages: HashMap<String, (&'f DescriptorProto, &'f FileDescriptorProto)>,
    enums: HashMap<String, (&'f EnumDescriptorProto, &'f FileDescriptorProto)>,
}

impl<'f> Types<'f> {
    fn new(files: &'f [FileDescriptorProto]) -> Read<Self> {
        let mut types = Self { messages: HashMap::new(), enums: HashMap::new() };
        for file in files {
            if !matches!(file.syntax(), "" | "proto2" | "proto3") {
                return Err(format!("'{}' files are not read, only proto2 and proto3", file.syntax()));
            }
            for enumeration in &file.enum_type {
                types.enums.insert(join(file.package(), enumeration.name()), (enumeration, file));
            }
            for message in &file.message_type {
                types.add(message, file.package(), file);
            }
        }
        Ok(types)
    }

    /// prost stops at a nesting of 100, so this does.
    fn add(&mut self, message: &'f DescriptorProto, scope: &str, file: &'f FileDescriptorProto) {
        let full = join(scope, message.name());
        for enumeration in &message.enum_type {
            self.enums.insert(join(&full, enumeration.name()), (enumeration, file));
        }
        for nested in &message.nested_type {
            self.add(nested, &full, file);
        }
        self.messages.insert(full, (message, file));
    }

    /// A type's full name, from the name that a field has for it: absolute with a dot, else from the inside out.
    fn resolve(&self, name: &str, scope: &str) -> Option<String> {
        if let Some(full) = name.strip_prefix('.') {
            return Some(full.to_owned());
        }
        let mut scope = scope;
        loop {
            let full = join(scope, name);
            if self.messages.contains_key(&full) || self.enums.contains_key(&full) {
                return Some(full);
            }
            match scope.rsplit_once('.') {
                Some((outer, _)) => scope = outer,
                None if scope.is_empty() => return None,
                None => scope = "",
            }
        }
    }

    fn program(&self, name: &str, columns: &[Column]) -> Read<Program> {
        let (message, file) = self.messages.get(name).ok_or_else(|| format!("there is no message '{name}'"))?;
        let mut fields = vec![];
        let mut of_number = HashMap::new();
        let mut oneofs: HashMap<i32, Vec<usize>> = HashMap::new();
        let mut missing = vec![];
        for (index, column) in columns.iter().enumerate() {
            let named = |field: &&FieldDescriptorProto| field.name() == column.name || field.json_name() == column.name;
            let exact = message.field.iter().find(|field| field.name() == column.name);
            let Some(field) = exact.or_else(|| message.field.iter().find(named)) else {
                missing.push(index);
                continue;
            };
            let number = u32::try_from(field.number()).map_err(|_| format!("field {} has no number", field.name()))?;
            if of_number.insert(number, fields.len()).is_some() {
                return Err(format!("two columns are the field '{}'", field.name()));
            }
            if let Some(oneof) = field.oneof_index.filter(|_| !field.proto3_optional()) {
                oneofs.entry(oneof).or_default().push(fields.len());
            }
            fields.push(self.field(field, index, name, file)?);
        }
        let mut by_number: HashMap<u32, _> = HashMap::new();
        let mut numbers = HashSet::new();
        for field in &message.field {
            let Ok(number) = u32::try_from(field.number()) else { continue };
            if !numbers.insert(number) {
                return Err(format!("the number {number} is there twice"));
            }
            let own = of_number.get(&number).copied();
            let oneof = field.oneof_index.and_then(|oneof| oneofs.get(&oneof));
            let others: Vec<usize> = oneof.into_iter().flatten().copied().filter(|&other| Some(other) != own).collect();
            if own.is_some() || !others.is_empty() {
                by_number.insert(number, (own, others));
            }
        }
        Ok(Program { fields, by_number, missing })
    }

    fn field(
        &self,
        field: &FieldDescriptorProto,
        column: usize,
        scope: &str,
        file: &FileDescriptorProto,
    ) -> Read<Field> {
        let form = if field.label() == Label::Repeated { Form::Other("a list") } else { self.form(field, scope)? };
        let message = matches!(form, Form::Timestamp | Form::Wrapper(_) | Form::Other(_));
        let implicit = file.syntax() == "proto3" && !field.proto3_optional() && field.oneof_index.is_none() && !message;
        let absent = match &field.default_value {
            Some(text) if !message && field.label() != Label::Required => {
                written_default(&form, text).ok_or_else(|| format!("the default of '{}' is not read", field.name()))?
            }
            _ if !implicit => Absent::Null,
            _ if matches!(form, Form::Text | Form::Bytes) => Absent::Text(vec![]),
            _ => Absent::Number(0),
        };
        Ok(Field { form, column, absent })
    }

    fn form(&self, field: &FieldDescriptorProto, scope: &str) -> Read<Form> {
        // A registry may leave the kind of a named type to whoever reads it.
        if field.r#type.is_none() || matches!(field.r#type(), Type::Message | Type::Enum) {
            return self.named_form(field.type_name(), scope);
        }
        Ok(match field.r#type() {
            Type::Bool => Form::Boolean,
            Type::Int32 => Form::Int32,
            Type::Int64 => Form::Int64,
            Type::Uint32 => Form::Uint32,
            Type::Uint64 => Form::Uint64,
            Type::Sint32 => Form::Sint32,
            Type::Sint64 => Form::Sint64,
            Type::Fixed32 => Form::Fixed32,
            Type::Fixed64 => Form::Fixed64,
            Type::Sfixed32 => Form::Sfixed32,
            Type::Sfixed64 => Form::Sfixed64,
            Type::Float => Form::Float,
            Type::Double => Form::Double,
            Type::String => Form::Text,
            Type::Bytes => Form::Bytes,
            Type::Group | Type::Message | Type::Enum => Form::Other("a group"),
        })
    }

    fn named_form(&self, name: &str, scope: &str) -> Read<Form> {
        // Their files are the same everywhere, and need not be among those that were given.
        let well_known = name.trim_start_matches('.');
        if let Some(form) = well_known_form(well_known) {
            return Ok(form);
        }
        let Some(full) = self.resolve(name, scope) else {
            return Err(format!("the type '{}' is unknown", crate::reason::excerpt(name.as_bytes())));
        };
        if let Some((enumeration, file)) = self.enums.get(&full) {
            // The first of several names of a number is the one that it is written with.
            let mut names = HashMap::new();
            for value in &enumeration.value {
                names.entry(value.number()).or_insert_with(|| value.name().to_owned());
            }
            return Ok(Form::Enum { names, closed: file.syntax() != "proto3" });
        }
        if self.messages.contains_key(&full) {
            return Ok(well_known_form(&full).unwrap_or(Form::Other("a message")));
        }
        Err(format!("the type '{}' is unknown", crate::reason::excerpt(full.as_bytes())))
    }
}

fn well_known_form(name: &str) -> Option<Form> {
    let inner = match name.strip_prefix("google.protobuf.")? {
        "Timestamp" => return Some(Form::Timestamp),
        "BoolValue" => Form::Boolean,
        "Int32Value" => Form::Int32,
        "Int64Value" => Form::Int64,
        "UInt32Value" => Form::Uint32,
        "UInt64Value" => Form::Uint64,
        "FloatValue" => Form::Float,
        "DoubleValue" => Form::Double,
        "StringValue" => Form::Text,
        "BytesValue" => Form::Bytes,
        _ => return None,
    };
    Some(Form::Wrapper(Box::new(inner)))
}

/// A proto2 field's default, which a descriptor has as text.
fn written_default(form: &Form, text: &str) -> Option<Absent> {
    Some(match form {
        Form::Boolean => Absent::Number(u64::from(text == "true")),
        Form::Text => Absent::Text(text.as_bytes().to_vec()),
        // Escaped as in C; only what needs no escape is taken.
        Form::Bytes if !text.contains('\\') => Absent::Text(text.as_bytes().to_vec()),
        Form::Float => Absent::Number(u64::from(text.parse::<f32>().ok()?.to_bits())),
        Form::Double => Absent::Number(text.parse::<f64>().ok()?.to_bits()),
        Form::Sint32 => Absent::Number(zigzag(i64::from(text.parse::<i32>().ok()?))),
        Form::Sint64 => Absent::Number(zigzag(text.parse().ok()?)),
        Form::Uint64 | Form::Fixed64 => Absent::Number(text.parse().ok()?),
        Form::Enum { names, .. } => Absent::Number(i64::from(*names.iter().find(|(_, name)| *name == text)?.0) as u64),
        Form::Int32 | Form::Int64 | Form::Uint32 | Form::Fixed32 | Form::Sfixed32 | Form::Sfixed64 => {
            Absent::Number(text.parse::<i64>().ok()? as u64)
        }
        _ => return None,
    })
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}
