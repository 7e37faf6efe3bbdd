"""The OpenAI face: what the `openai` SDK calls, answered with ordinary generations.

Requests are turned into those of /api/v2 (asked), rows into OpenAI's objects (shapes), problems into its
errors (errors). A request an SDK sends again by itself joins the generations of the first one (repeats).
"""
