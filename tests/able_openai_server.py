"""An OpenAI-compatible server whose abilities can be chosen, in the manner of those that there are.

with AbleServer(alternatives=0, heeds="grammar") as server:
    ... server.base_url, server.requests ...

It finds whatever holds "open" helpful, or better than what does not.
"""

import json
import re
from dataclasses import dataclass, fields
from typing import Any

from starlette.responses import JSONResponse, Response

from tests.fake_openai_server import FakeOpenAIServer

KNOWN = {"model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "stop"}
KNOWN |= {"logprobs", "top_logprobs", "response_format"}

PAIRS = (("success", "failure"), ("first", "second"), ("yes", "no"))
"""What it may be asked to choose from, the better one first."""


@dataclass
class AbleServer(FakeOpenAIServer):
    """Answers as it is told to.

    alternatives: log-probabilities that it gives at most, and refuses to give more; 0 ignores the fields.
    heeds: field by which it can be bound to a form; all other such fields are ignored.
    refuses: fields that it refuses, naming them. strict: refuses all fields that the API does not know, naming none.
    thinks: name of the field in which it gives its thinking. says: what it answers wherever it is not bound.
    named: name of the model in its answers. repeats: repeats the caller's key in every answer.
    """

    alternatives: int = 20
    heeds: str = ""
    refuses: tuple[str, ...] = ()
    strict: bool = False
    thinks: str = ""
    says: str = ""
    finish: str = "stop"
    named: str = "served"
    repeats: bool = False

    def become(self, **abilities: Any) -> "AbleServer":
        """Forgets what was asked, and can do what is said here and nothing else; returns itself."""
        for item in fields(AbleServer):
            if item.name not in ("mode", "requests"):
                setattr(self, item.name, abilities.get(item.name, item.default))
        self.mode = "ok"
        self.requests.clear()
        return self

    def complete(self, body: dict[str, Any], *, chat: bool, authorization: str) -> dict[str, Any] | Response:
        if refusal := self._refusal(body, chat=chat):
            return refusal
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        text = self._text(prompt, body, authorization)
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        if self.thinks:
            choice["message"] |= {"content": text, self.thinks: "Answer: yes"}
        asked = body.get("top_logprobs" if chat else "logprobs")
        if self.alternatives and asked:
            word = text.strip()
            other = next((b for a, b in (*PAIRS, *(pair[::-1] for pair in PAIRS)) if a == word), "yes")
            tops = [{"token": token, "logprob": value} for token, value in ((word, -0.1), (other, -2.5))]
            choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
        usage = {"prompt_tokens": 100, "completion_tokens": 7}
        return {"id": "x", "model": self.named, "choices": [choice], "usage": usage}

    def _refusal(self, body: dict[str, Any], *, chat: bool) -> Response | None:
        def refuse(message: str, param: str | None) -> Response:
            return JSONResponse({"error": {"message": message, "param": param}}, status_code=400)

        if self.strict and set(body) - KNOWN:
            return refuse("Extra inputs are not permitted", None)
        for field in self.refuses:
            if field in body:
                return refuse(f"Unsupported parameter: '{field}' is not supported with this model.", field)
        if 0 < self.alternatives < (body.get("top_logprobs" if chat else "logprobs") or 0):
            return refuse("the number of alternatives is too high", None)
        return None

    def _text(self, prompt: str, body: dict[str, Any], authorization: str) -> str:
        bound = self._words(body)
        event = re.findall(r"(?:Event|First|First event): .*|.* =>$", prompt)[-1:]
        helpful = "open" in str(event).rpartition(" But: ")[2]
        repeated = f" {authorization}" if self.repeats else ""
        if bound is None:
            if "legs" in prompt:
                return f" Four.{repeated}"
            shown = ("a success or a failure" in prompt, "Second" in prompt, True)
            words = PAIRS[shown.index(True)]
            word = words[0] if helpful else words[1]
            free = (
                f" It is what it is.{repeated}\nAnswer: {word}"
                if re.search("Thoughts:$|Think,", prompt)
                else f" {word}"
            )
            return self.says or free
        word = bound[0] if helpful else bound[-1]
        if "response_format" in self.heeds:
            return json.dumps({"thoughts": "Well.", "answer": word})
        return f"Well.{repeated}\nAnswer: {word}" if "Answer: " in json.dumps(body[self._field(body)]) else word

    def _field(self, body: dict[str, Any]) -> str:
        return "guided_regex" if self.heeds == "guided_choice" and "guided_regex" in body else self.heeds

    def _words(self, body: dict[str, Any]) -> list[str] | None:
        """Returns what it is bound to choose from, None if it is not bound."""
        value = body.get(self._field(body))
        if isinstance(value, dict):
            schema = value.get("json_schema", {}).get("schema")
            value = schema["properties"]["answer"]["enum"] if schema else value.get("choice", value.get("regex"))
        if not isinstance(value, str):
            return value
        last = value.rpartition("\n" if "root ::=" in value else ": (")[2].strip("()")
        return re.findall(r'"([^"]*)"', last) or last.split("|")
