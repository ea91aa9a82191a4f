# What may happen. One entry point, `decision`; whatever no rule allows is denied.
#
# The input is one question of the node (`weft_protocol::decision::Question`), with words for its
# enums: who asks (`point`), what (`capability`, `effect`, `arguments`, `labels`), by which `agent`,
# for which `owner`, on which `executor`, and for a call of a running agent, the `call`.

package weft.authz

import data.weft.settings

default decision := {"effect": "deny", "reason": "no rule allows this", "obligations": []}

decision := {"effect": "deny", "reason": reasons[0], "obligations": []} if {
	count(deny) > 0
	reasons := sort([reason | some reason in deny])
}

decision := {"effect": "ask", "reason": reasons[0], "obligations": []} if {
	count(deny) == 0
	count(ask) > 0
	reasons := sort([reason | some reason in ask])
}

decision := {"effect": "allow", "reason": reasons[0], "obligations": []} if {
	count(deny) == 0
	count(ask) == 0
	count(allow) > 0
	reasons := sort([reason | some reason in allow])
}

trusted_roles := {"admin", "member"}

# Who.

deny contains reason if {
	not input.owner.role in trusted_roles
	reason := sprintf("%s is a %s, which may not run commands", [input.owner.name, input.owner.role])
}

deny contains reason if {
	not input.executor.role in trusted_roles
	reason := sprintf("%s is a %s, which may not see data", [input.executor.name, input.executor.role])
}

# What leaves the house.

outward if input.capability in settings.outward

deny contains "untrusted text may not carry private data out of the house" if {
	outward
	"private" in input.labels
	"untrusted" in input.labels
}

ask contains "private data would leave the house" if {
	outward
	"private" in input.labels
	not "untrusted" in input.labels
}

# What must not happen twice, or was not made by us, is asked for.

ask contains "this must not happen twice" if {
	input.point != "host-call"
	input.effect == "at-most-once"
}

ask contains reason if {
	input.point != "host-call"
	not input.agent.embedded
	reason := sprintf("the agent %s did not come with weft", [input.agent.name])
}

# Steps.

allow contains "a command of your own, by an agent that came with weft" if {
	input.point != "host-call"
	input.agent.embedded
}

allow contains "a command of your own" if {
	input.point != "host-call"
	not input.agent.embedded
}

# Calls of a running agent: what its manifest asks for and nothing else.

allow contains "the manifest asks to read such documents" if {
	input.point == "host-call"
	input.call.what == "documents-read"
	input.call.target in input.agent.documents_read
}

allow contains "the manifest asks to write such documents" if {
	input.point == "host-call"
	input.call.what == "documents-write"
	input.call.target in input.agent.documents_write
}

allow contains "the manifest asks to set timers" if {
	input.point == "host-call"
	input.call.what == "timers"
	input.agent.timers
}

allow contains "the manifest names the capability among its calls" if {
	input.point == "host-call"
	input.call.what == "invoke"
	input.call.target in input.agent.calls
}
