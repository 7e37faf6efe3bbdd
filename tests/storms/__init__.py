"""Everything at once: customers, a provider with every fault it can have, and a service that is killed again and again.

weather    what goes wrong at the provider, another mixture from time to time
customers  who asks, asks again, cancels, retries and deletes meanwhile
enemy      who sends files that cost far more than they weigh
told       who listens and receives webhooks, and what each of them must have been told
money      budgets that are reached on the way
storm      one run: the customers, the kills, and the audit when it has become calm
report     its figures
"""
