//! The JSON Schema of the configuration file, written from the table of settings.
//!
//! Editors complete and check files with it. What one setting must be to another, and sizes and durations out of bounds,
//! only `tickcast check` knows.

use serde_json::{Map, Value, json};

use super::list::{LISTS, List};
use super::reference::join;
use super::setting::{Form, Key, Section, Setting as _, Size};
use super::{MATCH, SECTIONS, list};

/// The schema.
pub fn schema() -> Value {
    let mut root = object("Settings of a Tickcast node.");
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("The configuration of a Tickcast node");
    for section in SECTIONS {
        let mut table = object(&join(section.docs));
        table["properties"] = properties(section);
        for list in LISTS {
            if let Some((_, name)) =
                list.path.rsplit_once('.').filter(|(of, _)| *of == section.name)
            {
                table["properties"][name] = tables(list);
            }
        }
        *place(&mut root, section.name) = table;
    }
    root
}

fn object(description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "additionalProperties": false,
        "properties": {},
    })
}

/// Where the section of this name belongs. Outer ones come before inner ones.
fn place<'a>(root: &'a mut Value, name: &str) -> &'a mut Value {
    name.split('.').fold(root, |table, part| &mut table["properties"][part])
}

fn properties(section: &Section) -> Value {
    let named = section.keys.iter().map(|key| (list::last_name(key).to_owned(), setting(key)));
    Value::Object(named.collect())
}

/// A list of tables.
fn tables(list: &List) -> Value {
    let mut table = object(&join(list.section.docs));
    table["properties"] = properties(list.section);
    if list.names().any(|name| name == MATCH) {
        table["properties"][MATCH] = json!({
            "type": "string",
            "description": "An exact topic name, or the beginning of one followed by `*`.",
        });
    }
    let needed: Vec<_> = list.needed.iter().map(|(name, _)| *name).collect();
    table["required"] = json!(needed);
    json!({"type": "array", "items": table})
}

fn setting(key: &Key) -> Value {
    let mut schema = form(key.form);
    let restart = if key.needs_restart { " Needs a restart." } else { "" };
    schema.insert("description".to_owned(), json!(join(key.docs) + restart));
    schema.insert("default".to_owned(), json!((key.default)()));
    if let Some((low, high)) = (key.bounds)() {
        for (keyword, bound) in [("minimum", low), ("maximum", high)] {
            // Bounds of texts have no keyword; a size may be a number as well.
            let bytes = Size::read(&bound).filter(|_| key.form == Form::Size).map(Size::bytes);
            let number = bound.as_integer().map(|number| json!(number));
            if let Some(number) = number.or(bytes.map(|bytes| json!(bytes))) {
                schema.insert(keyword.to_owned(), number);
            }
        }
    }
    Value::Object(schema)
}

fn form(form: Form) -> Map<String, Value> {
    let schema = match form {
        Form::Truth => json!({"type": "boolean"}),
        Form::Number => json!({"type": "integer", "minimum": 0}),
        Form::Size => json!({
            "type": ["string", "integer"],
            "pattern": "^[0-9]+\\s*(B|KiB|MiB|GiB)?$",
            "minimum": 0,
        }),
        Form::Duration => json!({"type": "string", "pattern": "^[0-9]+\\s*(ms|s|m|h|d)$"}),
        Form::Text => json!({"type": "string"}),
        Form::Pattern(pattern) => json!({"type": "string", "pattern": pattern}),
        Form::Words(words) => json!({"enum": words}),
        Form::List { least, items } => {
            json!({"type": "array", "minItems": least, "items": self::form(*items)})
        }
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}
