//! What is answered of a location: type, kind, name, range and details, in each encoding.

use pyrightd::proto::{Outcome, Selector, SymbolKind};

use crate::harness::{Project, Server, named, select, type_of};

#[tokio::test]
async fn a_files_names_get_their_types() {
    let project = Project::new(&[
        ("shop/__init__.py", ""),
        (
            "shop/cart.py",
            "from shop.item import Item\n\ndef total(items: list[Item]):\n    return sum(item.price for item in items)\n",
        ),
        ("shop/item.py", "class Item:\n    def __init__(self, price: float):\n        self.price = price\n"),
    ]);
    let server = Server::start(&[&project.root()]);
    let file = server.file(&project.root(), select("shop/cart.py", Selector::Names)).await.unwrap();
    assert_eq!(type_of(&file, "Item"), "type[Item]");
    assert_eq!(type_of(&file, "total"), "(items: list[Item]) -> (float | Literal[0])");
    assert_eq!(type_of(&file, "price"), "float");
    assert_eq!(named(&file, "items").kind(), SymbolKind::Parameter);
    assert!(file.types.iter().all(|inferred| inferred.outcome() == Outcome::Typed), "{file:#?}");
}
