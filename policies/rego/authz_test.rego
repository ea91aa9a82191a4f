package weft.authz_test

import data.weft.authz

subject(name, role) := {"id": name, "name": name, "kind": "laptop", "role": role}

notes := {
	"name": "notes",
	"digest": "d",
	"embedded": true,
	"documents_read": ["note"],
	"documents_write": ["note"],
	"timers": false,
	"calls": [],
}

step := {
	"point": "owner",
	"run": "r",
	"step": "1",
	"capability": "notes.save",
	"effect": "idempotent",
	"arguments": {"text": "the plumber comes on friday"},
	"labels": [],
	"agent": notes,
	"owner": subject("laptop", "admin"),
	"executor": subject("server", "member"),
	"call": null,
	"now": 0,
}

effect(question) := effect if {
	effect := authz.decision.effect with input as question
}

reason(question) := reason if {
	reason := authz.decision.reason with input as question
}

host_call(what, target) := object.union(step, {"point": "host-call", "call": {"what": what, "target": target}})

test_an_empty_question_is_denied if effect({}) == "deny"

test_a_member_may_run_an_embedded_agent if effect(step) == "allow"

test_the_executor_decides_alike if effect(object.union(step, {"point": "executor"})) == "allow"

test_a_guest_may_not_run_commands if {
	question := object.union(step, {"owner": subject("tv", "guest")})
	effect(question) == "deny"
	contains(reason(question), "tv is a guest")
}

test_a_keeper_may_not_see_data if {
	question := object.union(step, {"executor": subject("rented", "keeper")})
	effect(question) == "deny"
	contains(reason(question), "rented is a keeper")
}

test_an_agent_from_elsewhere_is_asked_for if {
	effect(object.union(step, {"agent": object.union(notes, {"embedded": false})})) == "ask"
}

test_what_must_not_happen_twice_is_asked_for if {
	effect(object.union(step, {"effect": "at-most-once"})) == "ask"
}

test_public_text_may_leave_the_house if {
	effect(object.union(step, {"capability": "web.fetch", "labels": ["untrusted"]})) == "allow"
}

test_private_data_is_asked_for_before_it_leaves if {
	effect(object.union(step, {"capability": "web.fetch", "labels": ["private"]})) == "ask"
}

test_untrusted_text_may_not_carry_private_data_out if {
	question := object.union(step, {"capability": "web.fetch", "labels": ["private", "untrusted"]})
	effect(question) == "deny"
}

test_private_data_may_stay if {
	effect(object.union(step, {"labels": ["private", "untrusted"]})) == "allow"
}

test_an_agent_reads_what_its_manifest_names if {
	effect(host_call("documents-read", "note")) == "allow"
	effect(host_call("documents-read", "settings")) == "deny"
}

test_an_agent_writes_what_its_manifest_names if {
	effect(host_call("documents-write", "note")) == "allow"
	effect(host_call("documents-write", "registry")) == "deny"
}

test_an_agent_sets_timers_if_its_manifest_says_so if {
	timer := object.union(notes, {"timers": true})
	effect(object.union(host_call("timers", ""), {"agent": timer})) == "allow"
	effect(host_call("timers", "")) == "deny"
}

test_an_agent_calls_what_its_manifest_names if {
	text := object.union(notes, {"calls": ["llm.generate"]})
	effect(object.union(host_call("invoke", "llm.generate"), {"agent": text})) == "allow"
	effect(host_call("invoke", "llm.generate")) == "deny"
}

test_an_unknown_call_is_denied if effect(host_call("format-disk", "")) == "deny"
