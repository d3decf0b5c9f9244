"""Holds answers of nodes against docs/reference/openapi.yaml.

python openapi.py DOCUMENT < SAMPLES

A sample is a line of JSON: path and method as in the document, status, headers with names in lower case, and body.
Fails if the document is no OpenAPI, if a sample is not as documented, and if something documented has no sample.
"""

import json
import re
import sys

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

METHODS = {"get", "head", "post", "put", "patch", "delete", "options"}

document = yaml.safe_load(open(sys.argv[1], encoding="utf-8"))
validate(document)
registry = Registry().with_resource("urn:document", Resource(document, DRAFT202012))
failures = []
# What cannot be had from outside; a worker that hangs is a unit test.
unseen = {("/livez", "get", 503, None)}
# (path, method, status, code) of the answers that stand in the document; code is None where there is no choice.
open_answers = set()


def resolve(node):
    """What a reference stands for."""
    while isinstance(node, dict) and "$ref" in node:
        target = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def codes(content):
    """The error codes of an answer."""
    for part in resolve(content.get("schema", {})).get("allOf", []):
        found = resolve(part).get("properties", {}).get("code", {}).get("enum")
        if found:
            return found
    return [None]


def absolute(node):
    """A schema whose references lead into the document wherever it stands."""
    if isinstance(node, dict):
        return {
            key: f"urn:document{value}" if key == "$ref" else absolute(value)
            for key, value in node.items()
        }
    return [absolute(item) for item in node] if isinstance(node, list) else node


def problems(schema, value):
    validator = Draft202012Validator(absolute(schema), registry=registry)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def check(sample):
    operation = document["paths"].get(sample["path"], {}).get(sample["method"])
    if operation is None:
        # What is no operation has an answer all the same.
        name = {404: "NotFound", 405: "MethodNotAllowed"}.get(sample["status"])
        if name is None:
            return ["no such operation"]
        response = document["components"]["responses"][name]
    else:
        if str(sample["status"]) not in operation["responses"]:
            return ["the status is not documented"]
        response = resolve(operation["responses"][str(sample["status"])])
    found = []
    if sample["status"] == 404 and operation is None:
        # The hint names the routes of its listener.
        named = set(re.findall(r"/[\w{}/]+", json.loads(sample["body"])["hint"]))
        listeners = ({path for path, item in document["paths"].items() if ("servers" in item) == own} for own in (True, False))
        if named not in listeners:
            found.append(f"the routes {named} are not those that are documented")
    if sample["status"] == 405 and sample["path"] in document["paths"]:
        item = document["paths"][sample["path"]]
        expected = {method.upper() for method in METHODS & item.keys()}
        expected |= {"HEAD"} if "get" in item and "101" not in item["get"]["responses"] else set()
        expected |= set() if "servers" in item else {"OPTIONS"}
        if set(sample["headers"]["allow"].split(", ")) != expected:
            found.append(f"the methods that are documented are {expected}")
    for name, header in response.get("headers", {}).items():
        header, value = resolve(header), sample["headers"].get(name.lower())
        if value is not None:
            found += [f"{name}: {problem}" for problem in problems(header["schema"], value)]
        elif header.get("required"):
            found.append(f"{name} is missing")
    if "content" not in response:
        found += ["it has a body"] if sample["body"] else []
        open_answers.discard((sample["path"], sample["method"], sample["status"], None))
        return found
    kind = sample["headers"].get("content-type", "").split(";")[0]
    content = response["content"].get(kind)
    if content is None:
        return [*found, f"the content type is {kind!r}"]
    body = sample["body"] if kind.startswith("text/") else json.loads(sample["body"])
    found += problems(content["schema"], body)
    code = body.get("code") if isinstance(body, dict) else None
    open_answers.discard((sample["path"], sample["method"], sample["status"], code))
    return found


for path, item in document["paths"].items():
    for method in METHODS & item.keys():
        for status, response in item[method]["responses"].items():
            contents = resolve(response).get("content", {}).values()
            for code in {code for content in contents for code in codes(content)} or {None}:
                open_answers.add((path, method, int(status), code))
item_codes = set(document["components"]["schemas"]["ItemError"]["properties"]["error"]["properties"]["code"]["enum"])
reasons = set(document["components"]["schemas"]["Readiness"]["properties"]["reasons"]["items"]["enum"])

for line in sys.stdin:
    sample = json.loads(line)
    what = f"{sample['method']} {sample['path']}: {sample['status']} {sample['headers']} {sample['body'][:500]}"
    failures += [f"{what}\n  {problem}" for problem in check(sample)]
    if sample["status"] == 207:
        item_codes -= {result.get("error", {}).get("code") for result in json.loads(sample["body"])["results"]}
    if sample["path"] == "/readyz" and sample["status"] in (200, 503):
        reasons -= set(json.loads(sample["body"])["reasons"])

failures += [f"seen after all: {answer}" for answer in unseen - open_answers]
open_answers -= unseen
failures += [f"documented, and never seen: {answer}" for answer in sorted(open_answers, key=str)]
failures += [f"no item was ever refused with {code}" for code in sorted(item_codes)]
failures += [f"never a reason: {reason}" for reason in sorted(reasons)]
if failures:
    sys.exit("\n".join(failures))
