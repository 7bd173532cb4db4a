//! Holds values against the schemas of the OpenAPI file. A keyword that is not known here
//! is a failure, so that nothing is taken for checked that is not.

use serde_json::Value;

/// The document.
pub(crate) struct Document(pub(crate) Value);

/// What may stand beside what is checked.
const REMARKS: &[&str] = &["description", "summary", "title"];

impl Document {
    /// The schema that a `$ref` names.
    fn named<'a>(&'a self, name: &str) -> &'a Value {
        let path = name.strip_prefix('#').unwrap_or_else(|| panic!("{name} is not in this document"));
        self.0.pointer(path).unwrap_or_else(|| panic!("{name} is not there"))
    }

    /// A part of the document, behind its references.
    pub(crate) fn follow<'a>(&'a self, part: &'a Value) -> &'a Value {
        part.get("$ref").and_then(Value::as_str).map_or(part, |name| self.named(name))
    }

    /// What is wrong with a value.
    pub(crate) fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = schema.as_object().unwrap_or_else(|| panic!("{at}: not a schema: {schema}"));
        for (keyword, arg) in schema {
            self.keyword(keyword, arg, schema, value, at)?;
        }
        Ok(())
    }

    fn keyword(
        &self,
        keyword: &str,
        arg: &Value,
        schema: &serde_json::Map<String, Value>,
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        let wrong = |why: String| Err(format!("{at}: {why}: {value}"));
        let list = |v: &Value| v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]);
        match keyword {
            "$ref" => self.check(self.named(arg.as_str().unwrap()), value, at),
            "type" if !list(arg).iter().any(|t| is_of(t.as_str().unwrap(), value)) => wrong(format!("not {arg}")),
            "const" if arg != value => wrong(format!("not {arg}")),
            "enum" if !list(arg).contains(value) => wrong(format!("not one of {arg}")),
            "minimum" if value.as_f64() < arg.as_f64() => wrong(format!("less than {arg}")),
            "maximum" if value.as_f64() > arg.as_f64() => wrong(format!("more than {arg}")),
            "minItems" if value.as_array().is_some_and(|a| (a.len() as u64) < arg.as_u64().unwrap()) => {
                wrong(format!("fewer than {arg}"))
            }
            "maxItems" if value.as_array().is_some_and(|a| a.len() as u64 > arg.as_u64().unwrap()) => {
                wrong(format!("more than {arg}"))
            }
            "required" => match list(arg).iter().find(|k| value.get(k.as_str().unwrap()).is_none()) {
                Some(missing) => wrong(format!("{missing} is missing")),
                None => Ok(()),
            },
            "properties" => {
                let Some(members) = value.as_object() else { return Ok(()) };
                let known = members.iter().filter_map(|(k, v)| Some((k, v, arg.get(k)?)));
                known.into_iter().try_for_each(|(k, v, s)| self.check(s, v, &format!("{at}.{k}")))
            }
            "additionalProperties" => {
                let Some(members) = value.as_object() else { return Ok(()) };
                let known = |k: &String| schema.get("properties").is_some_and(|p| p.get(k).is_some());
                for (k, v) in members.iter().filter(|(k, _)| !known(k)) {
                    match arg {
                        Value::Bool(false) => return wrong(format!("{k} is not documented")),
                        Value::Bool(true) => {}
                        s => self.check(s, v, &format!("{at}.{k}"))?,
                    }
                }
                Ok(())
            }
            "items" => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                items.iter().enumerate().try_for_each(|(i, v)| self.check(arg, v, &format!("{at}[{i}]")))
            }
            "oneOf" => {
                let tried: Vec<_> = list(arg).iter().map(|s| self.check(s, value, at)).collect();
                match tried.iter().filter(|r| r.is_ok()).count() {
                    1 => Ok(()),
                    n => wrong(format!("{n} of the alternatives fit, not 1: {tried:?}")),
                }
            }
            "type" | "const" | "enum" | "minimum" | "maximum" | "minItems" | "maxItems" => Ok(()),
            remark if REMARKS.contains(&remark) => Ok(()),
            unknown => panic!("{at}: the keyword {unknown} is not checked"),
        }
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}

#[test]
fn values_are_held_against_schemas() {
    use serde_json::json;
    let d = Document(json!({ "n": { "type": "integer", "minimum": 0 } }));
    let ok = |schema: Value, value: Value| d.check(&schema, &value, "x").is_ok();
    assert!(ok(json!({ "$ref": "#/n" }), json!(3)) && !ok(json!({ "$ref": "#/n" }), json!(-3)));
    assert!(!ok(json!({ "type": "string" }), json!(3)) && ok(json!({ "type": ["string", "null"] }), json!(null)));
    let object = json!({ "type": "object", "required": ["a"], "properties": { "a": { "enum": ["b"] } },
        "additionalProperties": false });
    assert!(ok(object.clone(), json!({ "a": "b" })));
    for bad in [json!({}), json!({ "a": "c" }), json!({ "a": "b", "c": 1 }), json!([])] {
        assert!(!ok(object.clone(), bad.clone()), "{bad}");
    }
    assert!(!ok(json!({ "type": "array", "items": { "type": "null" } }), json!([null, 1])));
    assert!(!ok(json!({ "oneOf": [{ "type": "null" }, { "const": null }] }), json!(null)));
}
